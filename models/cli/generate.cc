#include "models/cli/generate.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>
#include <vector>

#include "fmt/ranges.h"
#include "models/cli/console.h"
#include "models/cli/data_warnings.h"
#include "models/cli/exit_code.h"
#include "models/cli/low_precision.h"
#include "models/llama/generate.h"
#include "models/llama/generation_config.h"
#include "models/tokenizer/tokenizer.h"

namespace te {
namespace {

StatusOr<std::vector<int32_t>> ParseIds(const std::string& text, int64_t vocab_size) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    while (at != end && *at == ' ') ++at;
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc()) {
      return InvalidArgument(
          "--prompt-ids is \"{}\"; expected ids separated by commas, as in 1,2,3", text);
    }
    if (id < 0 || id >= vocab_size) {
      return InvalidArgument(
          "--prompt-ids: {}; the model has ids 0 to {} (vocab_size in config.json)", id,
          vocab_size - 1);
    }
    ids.push_back(id);
    at = next;
    while (at != end && *at == ' ') ++at;
    if (at == end) return ids;
    if (*at++ != ',') {
      return InvalidArgument(
          "--prompt-ids is \"{}\"; expected ids separated by commas, as in 1,2,3", text);
    }
  }
}

// Before anything of this length is asked for.
Status CheckLength(const GenerateFlags& flags, size_t prompt, const LlamaConfig& config) {
  const int64_t room = kMaxGeneratedLength - static_cast<int64_t>(prompt);
  if (flags.max_new_tokens <= room) return OkStatus();
  return InvalidArgument(
      "--max-new-tokens is {}; expected {} or less after a prompt of {} tokens: te computes {} "
      "positions, and the model was made for {} (max_position_embeddings in config.json)",
      flags.max_new_tokens, std::max<int64_t>(room, 0), prompt, kMaxGeneratedLength,
      config.max_position_embeddings);
}

// What generation_config.json says: what ends the text, and what is not done here.
Status ApplyGenerationConfig(const GenerateFlags& flags, const std::string& directory,
                             const LlamaConfig& config, LlamaGenerateOptions* options) {
  StatusOr<GenerationConfig> generation = ReadGenerationConfig(directory, config);
  if (!generation.ok()) {
    if (flags.ignore_eos) return OkStatus();
    return Status(generation.status().code(),
                  generation.status().message() + "; --ignore-eos does without the file");
  }
  options->eos_token_ids = generation->eos_token_ids;
  if (!flags.ignore_eos && generation->eos_token_ids.empty() && !config.eos_token_ids.empty()) {
    PrintWarning(fmt::format(
        "{}/generation_config.json has no eos_token_id: as in Hugging Face, nothing but "
        "--max-new-tokens ends the text (config.json has eos_token_id {})",
        directory, fmt::join(config.eos_token_ids, ", ")));
  }
  if (!generation->not_applied.empty()) {
    PrintWarning(fmt::format(
        "{}/generation_config.json: not applied: {}; te generate takes the likeliest token each "
        "time",
        directory, fmt::join(generation->not_applied, ", ")));
  }
  return OkStatus();
}

// Prints text as it grows.
class TextStream {
 public:
  TextStream(const Tokenizer* tokenizer, std::vector<int32_t> ids)
      : tokenizer_(tokenizer), ids_(std::move(ids)) {}

  Status Add(int32_t id) {
    ids_.push_back(id);
    return Show(/*last=*/false);
  }
  // `last`: also what might still change.
  Status Show(bool last) {
    // The whole again each time: a piece's text depends on its neighbours (spaces, characters of
    // several byte pieces).
    TE_ASSIGN_OR_RETURN(const std::string text, tokenizer_->Decode(ids_));
    constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // an unfinished character
    if (!last && text.ends_with(kReplacement)) return OkStatus();
    if (text.size() > shown_) {
      PrintText(std::string_view(text).substr(shown_));
      shown_ = text.size();
    }
    return OkStatus();
  }

 private:
  const Tokenizer* tokenizer_;
  std::vector<int32_t> ids_;
  size_t shown_ = 0;
};

}  // namespace

Status Generate(const GenerateFlags& flags) {
  LlamaModelOptions options;
  TE_ASSIGN_OR_RETURN(const std::optional<Fp8Plan> plan,
                      ParseComputeFlags(flags.precision, flags.path, flags.fp8, &options));
  if (flags.prompt.has_value() == flags.prompt_ids.has_value()) {
    return InvalidArgument("give one of --prompt TEXT and --prompt-ids 1,2,3");
  }
  if (flags.max_new_tokens < 1)
    return InvalidArgument("--max-new-tokens is {}; expected 1 or more", flags.max_new_tokens);
  TE_ASSIGN_OR_RETURN(const std::string directory, FindModelDirectory(flags.model));
  // All that can be refused is refused before minutes of loading.
  TE_ASSIGN_OR_RETURN(const LlamaConfig config, LlamaConfig::FromFile(directory + "/config.json"));
  std::unique_ptr<Tokenizer> tokenizer;
  if (flags.prompt || !flags.output_ids) {
    StatusOr<std::unique_ptr<Tokenizer>> loaded = LoadTokenizer(directory);
    if (!loaded.ok()) {
      return flags.prompt ? loaded.status()
                          : Status(loaded.status().code(),
                                   loaded.status().message() + "; --output-ids does without");
    }
    tokenizer = std::move(loaded).value();
  }
  std::vector<int32_t> prompt;
  if (flags.prompt) {
    TE_ASSIGN_OR_RETURN(prompt, tokenizer->EncodePrompt(*flags.prompt));
  } else {
    TE_ASSIGN_OR_RETURN(prompt, ParseIds(*flags.prompt_ids, config.vocab_size));
  }
  TE_RETURN_IF_ERROR(CheckLength(flags, prompt.size(), config));
  LlamaGenerateOptions generate = {.max_new_tokens = flags.max_new_tokens,
                                   .ignore_eos = flags.ignore_eos};
  TE_RETURN_IF_ERROR(ApplyGenerationConfig(flags, directory, config, &generate));
  if (flags.prompt) WarnOfSpecialTexts(*flags.prompt, *tokenizer);
  WarnBeyondPositions("prompt and --max-new-tokens may make",
                      static_cast<int64_t>(prompt.size()) + flags.max_new_tokens, config);
  LowPrecision fp8;  // outlives the context
  TE_ASSIGN_OR_RETURN(
      OpenedModel opened,
      OpenModelWithPrecision(flags.model, options, plan, LowPrecisionUse::kEvaluation, &fp8));
  const EvaluationScope scope(opened.context.get(), fp8.recipe.get());
  if (flags.output_ids) {
    TE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                        GenerateGreedy(opened.llama.model.get(), prompt, generate));
    Print("{}\n", fmt::join(ids, ","));
    return OkStatus();
  }
  TextStream text(tokenizer.get(), prompt);
  TE_RETURN_IF_ERROR(text.Show(/*last=*/false));
  Status shown;
  const auto on_token = [&](int32_t id) {
    shown = text.Add(id);
    // Where nobody reads on, what is still to come would be computed for nothing.
    return shown.ok() && !OutputIsLost();
  };
  TE_RETURN_IF_ERROR(GenerateGreedy(opened.llama.model.get(), prompt, generate, on_token).status());
  TE_RETURN_IF_ERROR(shown);
  TE_RETURN_IF_ERROR(text.Show(/*last=*/true));
  Print("\n");
  return OkStatus();
}

}  // namespace te
