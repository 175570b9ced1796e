// Token ids from a safetensors file: training data, and the input of `te trace`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/checkpoint/input_file.h"
#include "te_kernels/base/status.h"

namespace te {

// Row-major [rows, columns] each.
struct TokenTensors {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<int32_t> input_ids;
  std::vector<int32_t> labels;          // empty: the file has none
  std::vector<uint8_t> attention_mask;  // 1 = keep, 0 = padding; empty: the file has none
};

// Reads input_ids [N, S] and, where they are there, labels and attention_mask of the same shape
// (any integer type). Other tensors are ignored. kInvalidArgument names the tensor or the element:
// no input_ids, another shape or type, an id outside [0, vocab_size), a label that is neither an id
// nor -100, a mask that is neither 0 nor 1.
StatusOr<TokenTensors> ReadTokenTensors(const std::string& path, int64_t vocab_size);
StatusOr<TokenTensors> ReadTokenTensors(InputFile input, int64_t vocab_size);

}  // namespace te
