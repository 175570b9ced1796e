// Shapes and strides from the C side, checked.
#pragma once

#include "te/te.h"
#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te::c_api {

StatusOr<Shape> ReadShape(int32_t rank, const int64_t* dims);
// strides NULL: dense.
StatusOr<TensorView> MakeView(void* data, DType dtype, const Shape& shape, const int64_t* strides);

}  // namespace te::c_api
