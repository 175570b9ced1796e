// What a producing operation does with its Sink, besides computing.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

// kInvalidArgument unless the dense result is `dtype` [shape] with inner stride 1 (absent, if it is
// quantized only) and the quantized copies fit it as the matrix [rows, columns].
Status CheckSink(const char* operation, const char* argument, const Sink& sink, DType dtype,
                 const Shape& shape, int64_t rows, int64_t columns);

// Where to make the dense result: the sink's own, or scratch of the caller's ArenaScope when only
// the quantized copies are wanted.
StatusOr<TensorView> DenseResult(const Exec& exec, const Sink& sink, DType dtype,
                                 const Shape& shape);

}  // namespace te
