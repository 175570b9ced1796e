#include "te_kernels/base/sink.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rms_norm/norm_rows.h"
#include "te_kernels/rms_norm/rms_norm.h"

namespace te {
namespace {

template <typename T>
Status Forward(const Exec& exec, const RmsNormForwardArgs& args) {
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat<T>(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  norm::ForwardRowsArgs rows;
  rows.x = args.x;
  rows.g = g;
  rows.epsilon = args.epsilon;
  rows.y = args.y.dense;
  rows.rstd = args.rstd;
  norm::ForwardRows<T, false>(exec, rows);
  return OkStatus();
}

template <typename T>
Status Backward(const Exec& exec, const RmsNormBackwardArgs& args) {
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat<T>(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  norm::BackwardRowsArgs rows;
  rows.dy = args.dy;
  rows.x = args.x;
  rows.g = g;
  rows.rstd = args.rstd;
  rows.add = args.add;
  rows.dx = args.dx.dense;
  if (!args.dgamma.defined()) {
    norm::BackwardRows<T, false>(exec, rows, nullptr);
    return OkStatus();
  }
  const int64_t chunks = norm::RowChunks(args.x.dim(0)).count;
  const int64_t stride = norm::Padded(args.x.dim(1));
  TE_ASSIGN_OR_RETURN(TensorView partials,
                      exec.scratch->Allocate(DType::kFloat32, {chunks, stride}));
  norm::BackwardRows<T, false>(exec, rows, partials.as<float>());
  norm::CombinePartials<T>(exec, partials.as<float>(), chunks, stride, args.accumulate_dgamma,
                           args.dgamma);
  return OkStatus();
}

}  // namespace

Status RmsNormForwardCpu(const Exec& exec, const RmsNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormForward(args));
  const ArenaScope scope(exec.scratch);
  RmsNormForwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.y.dense, DenseResult(exec, args.y, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, dense)
                                                       : Forward<bfloat16>(exec, dense));
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.y.dense, .out = args.y.quant});
}

Status RmsNormBackwardCpu(const Exec& exec, const RmsNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormBackward(args));
  const ArenaScope scope(exec.scratch);
  RmsNormBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, dense)
                                                       : Backward<bfloat16>(exec, dense));
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
