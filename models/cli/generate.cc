#include "models/cli/generate.h"

#include <charconv>
#include <memory>
#include <utility>
#include <vector>

#include "fmt/ranges.h"
#include "models/cli/low_precision.h"
#include "models/llama/generate.h"
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
      std::fwrite(text.data() + shown_, 1, text.size() - shown_, stdout);
      std::fflush(stdout);
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
  LowPrecision fp8;  // outlives the context
  TE_ASSIGN_OR_RETURN(
      OpenedModel opened,
      OpenModelWithPrecision(flags.model, options, plan, LowPrecisionUse::kEvaluation, &fp8));
  std::vector<int32_t> prompt;
  if (flags.prompt) {
    TE_ASSIGN_OR_RETURN(prompt, tokenizer->EncodePrompt(*flags.prompt));
  } else {
    TE_ASSIGN_OR_RETURN(prompt,
                        ParseIds(*flags.prompt_ids, opened.llama.model->config().vocab_size));
  }
  const LlamaGenerateOptions generate = {.max_new_tokens = flags.max_new_tokens,
                                         .ignore_eos = flags.ignore_eos};
  const EvaluationScope scope(opened.context.get(), fp8.recipe.get());
  if (flags.output_ids) {
    TE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                        GenerateGreedy(opened.llama.model.get(), prompt, generate));
    fmt::print("{}\n", fmt::join(ids, ","));
    return OkStatus();
  }
  TextStream text(tokenizer.get(), prompt);
  TE_RETURN_IF_ERROR(text.Show(/*last=*/false));
  Status shown;
  const auto on_token = [&](int32_t id) {
    shown = text.Add(id);
    return shown.ok();
  };
  TE_RETURN_IF_ERROR(GenerateGreedy(opened.llama.model.get(), prompt, generate, on_token).status());
  TE_RETURN_IF_ERROR(shown);
  TE_RETURN_IF_ERROR(text.Show(/*last=*/true));
  fmt::print("\n");
  return OkStatus();
}

}  // namespace te
