// Writing all of a model's tensors one by one, where several may be rows of one parameter that
// exists in FP8 alone: it is dense from the first of them to the last, and its one scale comes from
// all.
#pragma once

#include <unordered_map>

#include "models/llama/llama_model.h"

namespace te {

// Thread-compatible; the model must outlive it. Every tensor of the model is written once; a
// parameter of which one is missing at the end stays dense, and its codes as they were.
class LlamaTensorWrites {
 public:
  explicit LlamaTensorWrites(LlamaModel* model);
  // From now on tensor.value() can be written.
  Status Begin(const LlamaTensor& tensor);
  Status End(const LlamaTensor& tensor);

 private:
  Context* context_;
  std::unordered_map<const Parameter*, int> left_;  // tensors that have not ended
};

}  // namespace te
