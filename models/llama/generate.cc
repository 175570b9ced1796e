#include "models/llama/generate.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace te {
namespace {

StatusOr<int32_t> FirstLargest(const std::vector<float>& logits, size_t position) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      return InvalidArgument(
          "the logit of token {} after {} tokens is not a number: weights that are not finite?", i,
          position);
    }
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

StatusOr<std::vector<int32_t>> GenerateGreedy(LlamaModel* model, std::span<const int32_t> prompt,
                                              const LlamaGenerateOptions& options,
                                              const TokenCallback& on_token) {
  Context* context = model->context();
  const LlamaConfig& config = model->config();
  if (prompt.empty()) return InvalidArgument("the prompt has no tokens; expected at least one");
  const int64_t limit = kMaxGeneratedLength - static_cast<int64_t>(prompt.size());
  if (options.max_new_tokens < 0 || options.max_new_tokens > limit) {
    return InvalidArgument(
        "max_new_tokens is {}; expected from 0 to {}, which with the prompt are {} tokens",
        options.max_new_tokens, std::max<int64_t>(limit, 0), kMaxGeneratedLength);
  }
  // Each length of a sequence comes once: the prompt's, and without a cache every other one.
  const WorkOnce once(context);
  const bool cached = model->options().path == LlamaPath::kTe;
  std::vector<KeyValueCache> caches;
  if (cached) {
    // The last token is never fed back.
    const int64_t capacity =
        static_cast<int64_t>(prompt.size()) + std::max<int64_t>(options.max_new_tokens - 1, 0);
    TE_ASSIGN_OR_RETURN(caches, model->NewCaches(1, capacity));
  }
  TE_ASSIGN_OR_RETURN(const Tensor logits,
                      context->NewTensor(DType::kFloat32, {1, config.vocab_size}));
  std::vector<float> host(static_cast<size_t>(config.vocab_size));
  std::vector<int32_t> sequence(prompt.begin(), prompt.end());
  std::vector<int32_t> out;
  const std::vector<int64_t>& eos =
      options.eos_token_ids ? *options.eos_token_ids : config.eos_token_ids;
  size_t fed = 0;
  while (static_cast<int64_t>(out.size()) < options.max_new_tokens) {
    const std::span<const int32_t> next = std::span<const int32_t>(sequence).subspan(fed);
    TE_RETURN_IF_ERROR(model->Infer(1, static_cast<int64_t>(next.size()), next, caches,
                                    logits.view(),
                                    /*at_once=*/static_cast<int64_t>(prompt.size())));
    if (cached) fed = sequence.size();
    TE_RETURN_IF_ERROR(context->CopyToHost(logits, host.data()));
    TE_ASSIGN_OR_RETURN(const int32_t token, FirstLargest(host, sequence.size()));
    out.push_back(token);
    sequence.push_back(token);
    if (on_token && !on_token(token)) break;
    if (!options.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end()) break;
  }
  return out;
}

}  // namespace te
