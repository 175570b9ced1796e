#include "te_kernels/batched_gemm/batched_gemm.h"
#include "te_kernels/cast/in_float.h"
#include "te_kernels/gemm/onednn_state.h"

namespace te {
namespace {

// oneDNN broadcasts a batch dimension of extent 1; views do it with stride 0.
ConstTensorView WithBroadcasts(ConstTensorView view) {
  for (int axis = 0; axis < 2; ++axis) {
    if (view.stride(axis) == 0 && view.dim(axis) > 1) view = view.Slice(axis, 0, 1);
  }
  // An extent of 1 leaves the stride free, but oneDNN wants one that could be walked.
  std::array<int64_t, kMaxRank> strides = view.strides();
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (view.dim(axis) == 1 && strides[axis] == 0) strides[axis] = 1;
  }
  return ConstTensorView(view.data(), view.dtype(), view.shape(), strides);
}

template <typename T>
void ZeroUnlessAccumulating(const BatchedGemmArgs& args) {
  if (args.beta != 0) return;
  for (int64_t i = 0; i < args.d.dim(0); ++i) {
    for (int64_t j = 0; j < args.d.dim(1); ++j) {
      for (int64_t m = 0; m < args.d.dim(2); ++m) {
        T* row = args.d.Select(0, i).Select(0, j).Select(0, m).template as<T>();
        for (int64_t n = 0; n < args.d.dim(3); ++n) row[n] = T(0.0f);
      }
    }
  }
}

Status ThroughFloat(const Exec& exec, const BatchedGemmArgs& args) {
  ArenaScope scope(exec.scratch);
  BatchedGemmArgs in_float = args;
  TE_ASSIGN_OR_RETURN(in_float.a, InFloat(exec, args.a));
  TE_ASSIGN_OR_RETURN(in_float.b, InFloat(exec, args.b));
  if (args.d.dtype() == DType::kFloat32) return BatchedGemmCpu(exec, in_float);
  TE_ASSIGN_OR_RETURN(in_float.d, InFloat(exec, args.d));
  TE_RETURN_IF_ERROR(BatchedGemmCpu(exec, in_float));
  return CastCpu(exec, {.x = in_float.d, .y = args.d});
}

}  // namespace

Status BatchedGemmCpu(const Exec& exec, const BatchedGemmArgs& args) {
  TE_RETURN_IF_ERROR(ValidateBatchedGemm(args));
  if (args.d.elements() == 0) return OkStatus();
  if (args.a.dim(3) == 0) {
    args.d.dtype() == DType::kFloat32 ? ZeroUnlessAccumulating<float>(args)
                                      : ZeroUnlessAccumulating<bfloat16>(args);
    return OkStatus();
  }
  if (args.a.dtype() == DType::kBFloat16) {
    TE_ASSIGN_OR_RETURN(const OnednnState* state, GetOnednnState(exec));
    if (!state->native_bf16()) return ThroughFloat(exec, args);
  }
  MatmulSpec spec;
  spec.a = WithBroadcasts(args.a);
  spec.b = WithBroadcasts(args.b);
  spec.d = args.d;
  spec.alpha = args.alpha;
  spec.accumulate = args.beta != 0;
  return RunMatmul(exec, spec, args.a.data(), args.b.data(), nullptr, args.d.data());
}

}  // namespace te
