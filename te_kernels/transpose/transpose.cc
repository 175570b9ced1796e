#include "te_kernels/transpose/transpose.h"

#include "te_kernels/base/check.h"

namespace te {

Status ValidateTranspose(const TransposeArgs& args) {
  if (args.x.rank() != 2) {
    return InvalidArgument("transpose: x is {}; expected uint8 of rank 2", args.x.ToString());
  }
  const int64_t rows = args.x.dim(0), columns = args.x.dim(1);
  TE_RETURN_IF_ERROR(CheckTensor("transpose", "x", args.x, DType::kUInt8, {rows, columns}));
  TE_RETURN_IF_ERROR(CheckTensor("transpose", "y", args.y, DType::kUInt8, {columns, rows}));
  TE_RETURN_IF_ERROR(CheckDense("transpose", "x", args.x));
  TE_RETURN_IF_ERROR(CheckDense("transpose", "y", args.y));
  if (args.x.data() == args.y.data() && args.x.elements() != 0)
    return InvalidArgument("transpose: y is x's memory; expected its own");
  return OkStatus();
}

}  // namespace te
