// LlamaModel's random weights.
#include "models/llama/llama_model.h"
#include "models/llama/tensor_writes.h"
#include "te_core/quantization/fp8_only_weight.h"

namespace te {

Status LlamaModel::Initialize(const LlamaTensor& tensor) {
  if (!tensor.parameter->value.defined()) {  // FP8 alone, and no write of it has begun
    TE_RETURN_IF_ERROR(BeginWrite(context_, tensor.parameter));
    TE_RETURN_IF_ERROR(Initialize(tensor));
    return EndWrite(context_, tensor.parameter);
  }
  const auto index = static_cast<size_t>(&tensor - tensors_.data());
  ++tensor.parameter->version;
  RandomFillArgs fill = {.out = tensor.value()};
  if (tensor.name.shape.rank() == 2) {
    fill.b = static_cast<float>(config_.initializer_range);
  } else {
    // A constant: a normal distribution without width.
    fill.a = tensor.name.hf_name.ends_with(".bias") ? 0.0f : 1.0f;
    fill.b = 0.0f;
  }
  fill.random = {.seed = context_->options().seed, .stream = random_streams_[index]};
  TE_RETURN_IF_ERROR(context_->kernels().random_fill(context_->exec(), fill));
  // Hugging Face's _init_weights: the padding token's row begins at 0 (and a tied head's with it).
  return tensor.parameter == &embedding_->weight() ? embedding_->ZeroPaddingRow() : OkStatus();
}

Status LlamaModel::InitializeAll() {
  LlamaTensorWrites writes(this);
  for (const LlamaTensor& tensor : tensors_) {
    TE_RETURN_IF_ERROR(writes.Begin(tensor));
    TE_RETURN_IF_ERROR(Initialize(tensor));
    TE_RETURN_IF_ERROR(writes.End(tensor));
  }
  return OkStatus();
}

}  // namespace te
