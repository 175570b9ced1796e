#include "models/checkpoint/missing_tensor.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "fmt/ranges.h"

namespace te {
namespace {

// A hostile header has a million names of any length: the first ones are looked at.
constexpr size_t kMostNames = 20000;
constexpr size_t kLongestName = 200;
constexpr size_t kShownNames = 3;

struct StoredNames {
  std::vector<std::string> all;
  std::vector<std::string> unused;  // that mean no tensor of the model
};

StoredNames NamesOf(const CheckpointReader& reader,
                    const std::unordered_set<std::string_view>& wanted) {
  StoredNames names;
  for (const auto& [name, tensor] : reader.tensors()) {
    if (names.all.size() >= kMostNames) break;
    if (tensor.entry->name.size() > kLongestName) continue;
    names.all.push_back(tensor.entry->name);
    if (!wanted.contains(name)) names.unused.push_back(tensor.entry->name);
  }
  return names;
}

struct Prefix {
  std::string text;      // "module."
  std::string replaces;  // "" or "model.": what stands in its place in the wanted names
  std::string example;   // a stored name
  size_t count = 0;      // stored names that are wanted ones with the prefix
};

// The prefix that most stored names have before a wanted name (or before one without "model.").
Prefix CommonPrefix(const std::vector<std::string>& unused,
                    const std::unordered_set<std::string_view>& known) {
  std::map<std::pair<std::string, std::string>, Prefix> found;
  for (const std::string& name : unused) {
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
      const std::string rest = name.substr(dot + 1);
      std::string replaces;
      if (!known.contains(rest)) {
        replaces = "model.";
        const std::string based = replaces + rest;
        if (!known.contains(based)) continue;
      }
      Prefix& prefix = found[{name.substr(0, dot + 1), replaces}];
      if (prefix.count++ == 0) {
        prefix.text = name.substr(0, dot + 1);
        prefix.replaces = replaces;
        prefix.example = name;
      }
      break;
    }
  }
  Prefix best;
  for (const auto& [key, prefix] : found) {
    if (prefix.count > best.count) best = prefix;
  }
  return best;
}

// Who puts a prefix before the names.
const char* OriginOfPrefix(std::string_view prefix) {
  if (prefix.find("base_model.model.") != std::string_view::npos)
    return "a model saved within PEFT: save it after merge_and_unload";
  if (prefix.find("_fsdp_wrapped_module.") != std::string_view::npos)
    return "PyTorch's FullyShardedDataParallel: save the wrapped model";
  if (prefix.find("_forward_module.") != std::string_view::npos)
    return "Lightning: save the module within";
  if (prefix.find("_orig_mod.") != std::string_view::npos)
    return "torch.compile: save the model's _orig_mod";
  if (prefix.find("_checkpoint_wrapped_module.") != std::string_view::npos)
    return "PyTorch's checkpoint_wrapper: save the wrapped model";
  if (prefix.starts_with("module."))
    return "PyTorch's DataParallel or DistributedDataParallel, or DeepSpeed: save model.module";
  if (prefix.find("language_model.") != std::string_view::npos)
    return "the text part of a model that also sees or hears";
  if (prefix == "transformer.") return "LlamaForQuestionAnswering, or another architecture";
  return nullptr;
}

struct Convention {
  const char* part;    // in a stored name
  const char* origin;  // whose names these are, and what to do
};

// The first that matches counts: the more particular ones stand before.
constexpr Convention kConventions[] = {
    {".lora_A.", "a LoRA adapter's (PEFT): merge it into its base model first"},
    {".lora_B.", "a LoRA adapter's (PEFT): merge it into its base model first"},
    {".lora_embedding_A", "a LoRA adapter's (PEFT): merge it into its base model first"},
    {".base_layer.", "a model's within PEFT: save it after merge_and_unload"},
    {".qweight",
     "of weights quantized by GPTQ or AWQ, which are not read: use the model that was "
     "quantized"},
    {".weight_packed",
     "of weights quantized by compressed-tensors, which are not read: use the "
     "model that was quantized"},
    {".absmax",
     "of weights quantized by bitsandbytes, which are not read: use the model that was "
     "quantized"},
    {"weight_scale_inv",
     "of weights quantized to FP8, which are not read: use the model that was "
     "quantized"},
    {".weight_scale",
     "of weights quantized to FP8, which are not read: use the model that was "
     "quantized"},
    {"tok_embeddings.weight",
     "Meta's own: convert the model with transformers' "
     "convert_llama_weights_to_hf.py"},
    {".attention.wq.",
     "Meta's own: convert the model with transformers' "
     "convert_llama_weights_to_hf.py"},
    {".feed_forward.w1.",
     "Meta's own: convert the model with transformers' "
     "convert_llama_weights_to_hf.py"},
    {"token_embd.weight", "GGUF's (llama.cpp): use the model in Hugging Face's format"},
    {"blk.0.", "GGUF's (llama.cpp): use the model in Hugging Face's format"},
    {"linear_qkv", "Megatron's: convert the model to Hugging Face's format"},
    {"query_key_value", "Megatron's or GPT-NeoX's: convert the model to Hugging Face's format"},
    {"layernorm_qkv.", "Transformer Engine's: convert them to Hugging Face's"},
    {".qkv_proj.",
     "of a model whose query, key and value are one matrix (Phi-3, InternLM, a fused "
     "Llama): split them"},
    {".gate_up_proj.",
     "of a model whose gate and up projection are one matrix (Phi-3, a fused "
     "Llama): split them"},
    {".attn.c_attn.", "GPT-2's: another architecture"},
    {"gpt_neox.", "GPT-NeoX's: another architecture"},
    {"block_sparse_moe.", "Mixtral's: another architecture"},
    {".mlp.experts.", "of a mixture of experts: another architecture"},
    {".attn.output_proj.", "torchtune's: save the model with its Hugging Face checkpointer"},
    {"/kernel", "Flax's: convert the model to Hugging Face's format"},
};

const char* OriginOfNames(const std::vector<std::string>& stored, std::string* example) {
  for (const Convention& convention : kConventions) {
    for (const std::string& name : stored) {
      if (name.find(convention.part) == std::string::npos) continue;
      *example = name;
      return convention.origin;
    }
  }
  return nullptr;
}

// Levenshtein's distance, letters in either case and every separator alike; above `limit`: limit
// + 1.
size_t Distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t difference = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (difference > limit) return limit + 1;
  const auto plain = [](char c) {
    if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
    return c == '/' || c == '_' || c == '-' ? '.' : c;
  };
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    size_t least = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (plain(a[i - 1]) != plain(b[j - 1]));
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      least = std::min(least, row[j]);
    }
    if (least > limit) return limit + 1;
  }
  return std::min(row[b.size()], limit + 1);
}

std::vector<std::string> Nearest(const std::vector<std::string>& stored, const std::string& name) {
  std::vector<std::pair<size_t, const std::string*>> ranked;
  size_t limit = std::max<size_t>(name.size() / 2, 8);
  for (const std::string& candidate : stored) {
    const size_t distance = Distance(name, candidate, limit);
    if (distance > limit) continue;
    ranked.emplace_back(distance, &candidate);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    if (ranked.size() > kShownNames) ranked.pop_back();
    if (ranked.size() == kShownNames) limit = ranked.back().first;
  }
  std::vector<std::string> out;
  for (const auto& [distance, candidate] : ranked) out.push_back(*candidate);
  return out;
}

// Weight files beside those that were read: shards of which the index says nothing.
std::vector<std::string> FilesNotRead(const CheckpointReader& reader) {
  std::set<std::string> read;
  for (const auto& file : reader.files())
    read.insert(std::filesystem::path(file->path()).filename().string());
  std::vector<std::string> out;
  std::error_code error;
  std::filesystem::directory_iterator it(reader.directory(), error);
  for (size_t n = 0; !error && it != std::filesystem::directory_iterator() && n < kMostNames;
       it.increment(error), ++n) {
    const std::string name = it->path().filename().string();
    const bool weights = (name.starts_with("model") && name.ends_with(".safetensors")) ||
                         (name.starts_with("pytorch_model") && name.ends_with(".bin"));
    if (weights && !read.contains(name)) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  if (out.size() > kShownNames) out.resize(kShownNames);
  return out;
}

}  // namespace

std::string WhyMissing(const CheckpointReader& reader, const std::string& name,
                       std::span<const std::string> wanted) {
  const std::unordered_set<std::string_view> known(wanted.begin(), wanted.end());
  const StoredNames stored = NamesOf(reader, known);
  std::string out;
  if (const std::string* says = reader.IndexSays(name); says != nullptr) {
    out += fmt::format("; it is said to be in {} ({}), which does not hold it", *says,
                       std::filesystem::path(reader.index_path()).filename().string());
  } else if (!reader.index_path().empty()) {
    const std::vector<std::string> others = FilesNotRead(reader);
    if (!others.empty()) {
      out += fmt::format("; {} names the files above, and not {}",
                         std::filesystem::path(reader.index_path()).filename().string(),
                         fmt::join(others, ", "));
    }
  }
  if (stored.all.empty()) return out + "; there is no tensor in it at all";
  std::string example;
  const char* origin = OriginOfNames(stored.unused, &example);
  const Prefix prefix = CommonPrefix(stored.unused, known);
  if (prefix.count > 0) {
    const char* whose = OriginOfPrefix(prefix.text);
    out += fmt::format(
        "; {} names begin with \"{}\" ({}){}{}: {}", prefix.count, prefix.text, prefix.example,
        whose == nullptr ? "" : ", as those of ", whose == nullptr ? "" : whose,
        prefix.replaces.empty() ? "take that off the names" : "put \"model.\" in its place");
    return origin == nullptr ? out
                             : out + fmt::format("; names such as {} are {}", example, origin);
  }
  if (origin != nullptr) return out + fmt::format("; names such as {} are {}", example, origin);
  const std::vector<std::string> nearest = Nearest(stored.all, name);
  if (!nearest.empty()) {
    out += fmt::format("; the nearest names that it has: {}", fmt::join(nearest, ", "));
  } else {
    out += fmt::format("; it has names such as {}", stored.all.front());
  }
  return out;
}

}  // namespace te
