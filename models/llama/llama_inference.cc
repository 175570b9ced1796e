// Logits of the last positions, with or without key-value caches: generation.
#include "models/llama/llama_model.h"

namespace te {

StatusOr<std::vector<KeyValueCache>> LlamaModel::NewCaches(int64_t batch, int64_t capacity) {
  std::vector<KeyValueCache> caches(static_cast<size_t>(config_.num_hidden_layers));
  const Shape shape = {batch, capacity, config_.num_key_value_heads, config_.head_dim};
  for (KeyValueCache& cache : caches) {
    TE_ASSIGN_OR_RETURN(cache.key, context_->NewTensor(options_.params_dtype, shape));
    TE_ASSIGN_OR_RETURN(cache.value, context_->NewTensor(options_.params_dtype, shape));
  }
  return caches;
}

Status LlamaModel::Infer(int64_t batch, int64_t sequence, std::span<const int32_t> ids,
                         std::span<KeyValueCache> caches, TensorView logits, int64_t at_once) {
  TE_RETURN_IF_ERROR(Check({.batch = batch, .sequence = sequence, .input_ids = ids}));
  if (!caches.empty() && options_.path == LlamaPath::kHf) {
    return Unsupported("the hf path has no key-value cache; use the te path");
  }
  if (!caches.empty() && caches.size() != decoder_->size()) {
    return InvalidArgument("{} key-value caches; expected one for each of {} layers", caches.size(),
                           decoder_->size());
  }
  const int64_t start = caches.empty() ? 0 : caches[0].length;
  if (!caches.empty() && start + sequence > caches[0].key.shape()[1]) {
    return InvalidArgument(
        "the key-value cache holds {} tokens; expected room for {} before and {} new ones",
        caches[0].key.shape()[1], start, sequence);
  }
  const DType dtype = options_.params_dtype;
  const Shape hidden = {batch, sequence, config_.hidden_size};
  ArenaScope scope(context_->scratch());
  Arena* scratch = context_->scratch();
  TE_ASSIGN_OR_RETURN(const TensorView tokens, scratch->Allocate(DType::kInt32, {batch, sequence}));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(ids.data(), tokens));
  TE_ASSIGN_OR_RETURN(TensorView x, scratch->Allocate(dtype, hidden));
  TE_ASSIGN_OR_RETURN(const TensorView y, scratch->Allocate(dtype, hidden));
  TE_ASSIGN_OR_RETURN(const RotaryTable rotary, caches.empty() && at_once > 0
                                                    ? rotary_->GrownTable(at_once, sequence)
                                                    : rotary_->Table(start + sequence));
  ForwardArgs embed;
  embed.input = tokens;
  embed.output = x;
  TE_RETURN_IF_ERROR(embedding_->Forward(embed, nullptr));
  TE_ASSIGN_OR_RETURN(x,
                      decoder_->Infer(x, y, {.rotary = rotary, .start_position = start}, caches));
  // Only the last position of a row is asked for.
  TE_ASSIGN_OR_RETURN(const TensorView last,
                      scratch->Allocate(dtype, {batch, config_.hidden_size}));
  TE_ASSIGN_OR_RETURN(const TensorView normed,
                      scratch->Allocate(dtype, {batch, config_.hidden_size}));
  TE_RETURN_IF_ERROR(
      context_->kernels().cast(context_->exec(), {.x = x.Select(1, sequence - 1), .y = last}));
  ForwardArgs norm;
  norm.input = last;
  norm.output = normed;
  TE_RETURN_IF_ERROR(norm_->Forward(norm, nullptr));
  return context_->kernels().gemm(
      context_->exec(),
      {.kind = GemmKind::kFprop, .a = normed, .b = head_->weight().value.view(), .d = logits});
}

}  // namespace te
