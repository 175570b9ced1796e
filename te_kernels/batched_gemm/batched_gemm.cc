#include "te_kernels/batched_gemm/batched_gemm.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

Status CheckOperand(const char* argument, const ConstTensorView& view) {
  const bool floats = view.dtype() == DType::kFloat32 || view.dtype() == DType::kBFloat16;
  if (view.defined() && floats && view.rank() == 4) return OkStatus();
  return InvalidArgument("batched_gemm: {} is {}; expected rank 4, float32 or bfloat16", argument,
                         view.ToString());
}

}  // namespace

Status ValidateBatchedGemm(const BatchedGemmArgs& args) {
  TE_RETURN_IF_ERROR(CheckOperand("a", args.a));
  TE_RETURN_IF_ERROR(CheckOperand("b", args.b));
  const ConstTensorView &a = args.a, &b = args.b;
  if (a.dtype() != b.dtype() || a.dim(0) != b.dim(0) || a.dim(1) != b.dim(1) ||
      a.dim(3) != b.dim(2)) {
    return InvalidArgument(
        "batched_gemm: a is {} and b is {}; expected [B0, B1, M, K] and [B0, B1, K, N] of one "
        "dtype",
        a.ToString(), b.ToString());
  }
  const DType dtype = args.d.dtype() == DType::kFloat32 ? DType::kFloat32 : a.dtype();
  TE_RETURN_IF_ERROR(
      CheckTensor("batched_gemm", "d", args.d, dtype, {a.dim(0), a.dim(1), a.dim(2), b.dim(3)}));
  if (args.beta != 0 && args.beta != 1)
    return InvalidArgument("batched_gemm: beta is {}; expected 0 or 1", args.beta);
  return OkStatus();
}

}  // namespace te
