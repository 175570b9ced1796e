#include "te_kernels/base/sink.h"
#include "te_kernels/layer_norm/layer_norm.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rms_norm/norm_rows.h"

namespace te {
namespace {

template <typename T>
Status Forward(const Exec& exec, const LayerNormForwardArgs& args) {
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat<T>(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  TE_ASSIGN_OR_RETURN(const float* beta, norm::ParameterAsFloat<T>(exec, args.beta, 0.0f));
  norm::ForwardRowsArgs rows;
  rows.x = args.x;
  rows.g = g;
  rows.beta = beta;
  rows.epsilon = args.epsilon;
  rows.y = args.y.dense;
  rows.mean = args.mean;
  rows.rstd = args.rstd;
  norm::ForwardRows<T, true>(exec, rows);
  return OkStatus();
}

template <typename T>
Status Backward(const Exec& exec, const LayerNormBackwardArgs& args) {
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat<T>(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  norm::BackwardRowsArgs rows;
  rows.dy = args.dy;
  rows.x = args.x;
  rows.g = g;
  rows.mean = args.mean;
  rows.rstd = args.rstd;
  rows.add = args.add;
  rows.dx = args.dx.dense;
  if (!args.dgamma.defined() && !args.dbeta.defined()) {
    norm::BackwardRows<T, true>(exec, rows, nullptr);
    return OkStatus();
  }
  const int64_t chunks = norm::RowChunks(args.x.dim(0)).count;
  const int64_t padded = norm::Padded(args.x.dim(1));
  TE_ASSIGN_OR_RETURN(TensorView partials,
                      exec.scratch->Allocate(DType::kFloat32, {chunks, 2 * padded}));
  norm::BackwardRows<T, true>(exec, rows, partials.as<float>());
  if (args.dgamma.defined()) {
    norm::CombinePartials<T>(exec, partials.as<float>(), chunks, 2 * padded,
                             args.accumulate_parameter_gradients, args.dgamma);
  }
  if (args.dbeta.defined()) {
    norm::CombinePartials<T>(exec, partials.as<float>() + padded, chunks, 2 * padded,
                             args.accumulate_parameter_gradients, args.dbeta);
  }
  return OkStatus();
}

}  // namespace

Status LayerNormForwardCpu(const Exec& exec, const LayerNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormForward(args));
  const ArenaScope scope(exec.scratch);
  LayerNormForwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.y.dense, DenseResult(exec, args.y, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, dense)
                                                       : Forward<bfloat16>(exec, dense));
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.y.dense, .out = args.y.quant});
}

Status LayerNormBackwardCpu(const Exec& exec, const LayerNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormBackward(args));
  const ArenaScope scope(exec.scratch);
  LayerNormBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, dense)
                                                       : Backward<bfloat16>(exec, dense));
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
