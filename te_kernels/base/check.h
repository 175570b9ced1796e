// What operations check of their arguments, with one wording: "rms_norm_forward: y is float32 [2,
// 3]; expected bfloat16 [2, 3]".
#pragma once

#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

// Present, of rank `rank`, float32 or bfloat16, inner stride 1.
Status CheckFloats(const char* operation, const char* argument, const ConstTensorView& view,
                   int rank);
// Present, of exactly this dtype and shape, inner stride 1. A view without elements needs no
// address.
Status CheckTensor(const char* operation, const char* argument, const ConstTensorView& view,
                   DType dtype, const Shape& shape);
// As CheckTensor, of dtype `dtype` or float32: parameters and their gradients.
Status CheckParameter(const char* operation, const char* argument, const ConstTensorView& view,
                      DType dtype, const Shape& shape);
// Dense besides.
Status CheckDense(const char* operation, const char* argument, const ConstTensorView& view);

}  // namespace te
