// Lengths of right-padded sequences, for backends that mask by length.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

// lengths[0, b] = num_queries; lengths[1, b] = the number of zeros in padding[b, :]. padding: uint8
// [B, Skv]; lengths: int32 [2, B], dense. Asynchronous.
Status SequenceLengthsCuda(const Exec& exec, const ConstTensorView& padding, int64_t num_queries,
                           const TensorView& lengths);

}  // namespace te
