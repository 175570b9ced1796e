#include "te_kernels/gemm/cublaslt_matmul.h"
#include "te_kernels/gemm/gemm_empty_cuda.h"
#include "te_kernels/gemm/gemm_quantized.h"

namespace te {

Status GemmCuda(const Exec& exec, const GemmArgs& args) {
  TE_RETURN_IF_ERROR(ValidateGemm(args));
  if (args.d.elements() == 0) return OkStatus();
  if (args.a.quantized()) return GemmQuantizedCuda(exec, args);
  LtMatmulArgs matmul = {.a = args.a.dense,
                         .b = args.b.dense,
                         .bias = args.bias,
                         .c = args.c,
                         .d = args.d,
                         .beta = args.beta};
  const char* orientation = "dgrad";
  if (args.kind == GemmKind::kFprop) {
    matmul.b = matmul.b.Transpose(0, 1);
    orientation = "fprop";
  } else if (args.kind == GemmKind::kWgrad) {
    matmul.a = matmul.a.Transpose(0, 1);
    orientation = "wgrad";
  }
  if (matmul.a.dim(1) == 0) return GemmEmptyCuda(exec, args);
  return RunLtMatmul(exec, matmul, "gemm", orientation);
}

}  // namespace te
