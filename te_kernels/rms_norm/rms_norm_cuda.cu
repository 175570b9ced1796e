#include "te_kernels/base/sink.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/norm_rows_backward.cuh"
#include "te_kernels/rms_norm/rms_norm.h"
#include "te_kernels/rms_norm/rms_norm_float8.h"

namespace te {
namespace {

template <typename T, typename P>
Status Forward(const Exec& exec, const RmsNormForwardArgs& args) {
  norm::ForwardRows<T, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.x = args.x.as<T>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.epsilon = args.epsilon;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  rows.y = args.y.dense.as<T>();
  rows.y_stride = args.y.dense.stride(0);
  rows.rstd = args.rstd.defined() ? args.rstd.as<float>() : nullptr;
  return norm::LaunchForward<false>(exec, rows);
}

template <typename T, typename P>
Status Backward(const Exec& exec, const RmsNormBackwardArgs& args) {
  norm::BackwardRows<T, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.dy = args.dy.as<T>();
  rows.dy_stride = args.dy.stride(0);
  rows.x = args.x.as<T>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.rstd = args.rstd.as<float>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  if (args.add.defined()) {
    rows.add = args.add.as<T>();
    rows.add_stride = args.add.stride(0);
  }
  rows.dx = args.dx.dense.as<T>();
  rows.dx_stride = args.dx.dense.stride(0);
  return norm::LaunchBackward<false>(
      exec, rows, {.dgamma = args.dgamma, .dbeta = {}, .accumulate = args.accumulate_dgamma});
}

Status Run(const Exec& exec, const RmsNormForwardArgs& args) {
  if (args.x.dtype() == DType::kFloat32) return Forward<float, float>(exec, args);
  return args.gamma.dtype() == DType::kFloat32 ? Forward<bfloat16, float>(exec, args)
                                               : Forward<bfloat16, bfloat16>(exec, args);
}

Status Run(const Exec& exec, const RmsNormBackwardArgs& args) {
  if (args.x.dtype() == DType::kFloat32) return Backward<float, float>(exec, args);
  return args.gamma.dtype() == DType::kFloat32 ? Backward<bfloat16, float>(exec, args)
                                               : Backward<bfloat16, bfloat16>(exec, args);
}

}  // namespace

Status RmsNormForwardCuda(const Exec& exec, const RmsNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormForward(args));
  if (norm::FusesForward(args)) return norm::RmsNormForwardFloat8Cuda(exec, args);
  const size_t rstd_bytes = args.rstd.defined() ? args.rstd.bytes() : 0;
  Record(exec, "rms_norm_forward", "rms_norm_forward_cuda", args.x.dtype(),
         static_cast<int64_t>(2 * args.x.bytes() + args.gamma.bytes() + rstd_bytes));
  ArenaScope scope(exec.scratch);
  RmsNormForwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.y.dense, DenseResult(exec, args.y, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(Run(exec, dense));
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = dense.y.dense, .out = args.y.quant});
}

Status RmsNormBackwardCuda(const Exec& exec, const RmsNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormBackward(args));
  if (norm::FusesBackward(args)) return norm::RmsNormBackwardFloat8Cuda(exec, args);
  const size_t tensors = args.add.defined() ? 4 : 3;
  const size_t dgamma_bytes =
      args.dgamma.defined() ? args.dgamma.bytes() * (args.accumulate_dgamma ? 2 : 1) : 0;
  Record(exec, "rms_norm_backward", "rms_norm_backward_cuda", args.x.dtype(),
         static_cast<int64_t>(tensors * args.x.bytes() + args.gamma.bytes() + args.rstd.bytes() +
                              dgamma_bytes));
  ArenaScope scope(exec.scratch);
  RmsNormBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(Run(exec, dense));
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
