#include "te_kernels/batched_gemm/batched_gemm.h"
#include "te_kernels/batched_gemm/batched_gemm_plain_cuda.h"
#include "te_kernels/gemm/cublaslt_matmul.h"

namespace te {
namespace {

// Whether cuBLASLt can read the last two dimensions as they lie.
bool HasUnitStride(const ConstTensorView& view) {
  return view.stride(2) == 1 || view.stride(3) == 1 || view.dim(2) == 1 || view.dim(3) == 1;
}

// Whether the two batch dimensions are one, at the inner one's distance.
bool Merges(const ConstTensorView& view) { return view.stride(0) == view.dim(1) * view.stride(1); }

// The products [i] or, merged, all of them.
LtMatmulArgs ProductsOf(const BatchedGemmArgs& args, int64_t i, int64_t batch) {
  const ConstTensorView a = args.a.Select(0, i), b = args.b.Select(0, i);
  const TensorView d = args.d.Select(0, i);
  return {.a = a.Select(0, 0),
          .b = b.Select(0, 0),
          .d = d.Select(0, 0),
          .alpha = args.alpha,
          .beta = args.beta,
          .batch = batch,
          .a_distance = a.stride(0),
          .b_distance = b.stride(0),
          .d_distance = d.stride(0)};
}

}  // namespace

Status BatchedGemmCuda(const Exec& exec, const BatchedGemmArgs& args) {
  TE_RETURN_IF_ERROR(ValidateBatchedGemm(args));
  if (args.d.elements() == 0) return OkStatus();
  if (args.a.dim(3) == 0 || !HasUnitStride(args.a) || !HasUnitStride(args.b))
    return BatchedGemmPlainCuda(exec, args);
  const int64_t outer = args.d.dim(0), inner = args.d.dim(1);
  if (outer == 1 || (Merges(args.a) && Merges(args.b) && Merges(args.d)))
    return RunLtMatmul(exec, ProductsOf(args, 0, outer * inner), "batched_gemm", "");
  for (int64_t i = 0; i < outer; ++i)
    TE_RETURN_IF_ERROR(RunLtMatmul(exec, ProductsOf(args, i, inner), "batched_gemm", ""));
  return OkStatus();
}

}  // namespace te
