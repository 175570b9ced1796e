#include "models/llama/tensor_writes.h"

#include "te_core/quantization/fp8_only_weight.h"

namespace te {

LlamaTensorWrites::LlamaTensorWrites(LlamaModel* model) : context_(model->context()) {
  for (const LlamaTensor& tensor : model->tensors()) ++left_[tensor.parameter];
}

Status LlamaTensorWrites::Begin(const LlamaTensor& tensor) {
  return BeginWrite(context_, tensor.parameter);
}

Status LlamaTensorWrites::End(const LlamaTensor& tensor) {
  return --left_[tensor.parameter] == 0 ? EndWrite(context_, tensor.parameter) : OkStatus();
}

}  // namespace te
