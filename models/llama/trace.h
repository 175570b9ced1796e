// What a model computes from one batch, as named float32 tensors: `te trace`, and the tests against
// Hugging Face.
#pragma once

#include <string>
#include <vector>

#include "models/llama/llama_model.h"

namespace te {

struct LlamaTraceOptions {
  bool gradients = false;  // grad.<Hugging Face name>: of the mean loss; needs labels
  bool hidden_states =
      false;  // hidden.i: input of decoder layer i; the last one is the final norm's output
};

// In host memory, dense.
struct LlamaTraceTensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

// logits [B, S, V]; with labels: loss [1], the sum over counted shifted labels / their count; then
// hidden.i [B, S, H] and grad.<name>, as asked. Overwrites the model's gradients and
// StepScalars::loss_sum and ::token_count. kInvalidArgument: a batch that LlamaModel::Forward
// refuses, gradients without labels, labels of which none counts.
StatusOr<std::vector<LlamaTraceTensor>> TraceLlama(LlamaModel* model, const LlamaBatch& batch,
                                                   const LlamaTraceOptions& options);

}  // namespace te
