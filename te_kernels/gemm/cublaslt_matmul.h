// Matrix products through cuBLASLt: d = alpha * a b (+ bias) + beta * c, for strided views, with
// the algorithm chosen once a shape.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/device/pin_as.h"
#include "te_kernels/gemm/lt_algorithm.h"

namespace te {

// How an operand of codes (a uint8 view) is read: E4M3 or E5M2, one factor for the tensor or
// float32 blocks. Format kNone: the view's own dtype.
struct LtCodes {
  QuantFormat format = QuantFormat::kNone;
  QuantScaling scaling = QuantScaling::kTensor;
  const float* scale_inv = nullptr;
};

// One product, or `batch` of them at fixed distances. a [M, K] and b [K, N] have a stride of 1 in
// one of their dimensions; c and d [M, N] in the second (c may be d).
struct LtMatmulArgs {
  ConstTensorView a;
  ConstTensorView b;
  ConstTensorView bias;  // optional, [N]
  ConstTensorView c;     // read when beta != 0
  TensorView d;
  float alpha = 1;
  float beta = 0;
  int64_t batch = 1;
  int64_t a_distance = 0;  // elements from one product's operand to the next; 0 broadcasts
  int64_t b_distance = 0;
  int64_t d_distance = 0;          // c's, too
  LtCodes a_codes, b_codes;        // both or neither
  bool fast_accumulation = false;  // of codes: in the tensor cores' own registers
};

// Large products are timed once (on the first call with their shape, in scratch memory, unless the
// stream is being captured or Exec::once is set) and keep the fastest of cuBLASLt's deterministic
// candidates; small ones take its first. A search takes up to a second, all together what
// SearchSettings say (candidate_search.h). kUnsupported when cuBLASLt has none for the shape.
// Records itself as `operation` with `orientation`: "wgrad" where the sum runs over tokens.
Status RunLtMatmul(const Exec& exec, const LtMatmulArgs& args, const char* operation,
                   const char* orientation);

// The choices made so far, as text: one line a shape, under a header that names the card, driver
// and library (choices_header.h).
StatusOr<std::string> SaveLtChoices(cuda::CudaState* state, WhichChoices which);
// And back. Nothing: text of another card or library, which is ignored as a whole. kCorruptData: no
// such text.
using LtChoices = std::unordered_map<std::string, LtAlgorithm>;
StatusOr<std::optional<LtChoices>> ParseLtChoices(cuda::CudaState* state, const std::string& text,
                                                  PinAs as);
// A pinned shape is never timed again.
void PinLtChoices(cuda::CudaState* state, const LtChoices& choices, PinAs as);
size_t LtVersion();

}  // namespace te
