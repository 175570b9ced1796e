#include "te_kernels/base/sink.h"
#include "te_kernels/cuda/elementwise.cuh"
#include "te_kernels/layer_norm/layer_norm.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/norm_rows_backward.cuh"

namespace te {
namespace {

struct Same {
  __device__ float operator()(float x) const { return x; }
};

// gamma and beta of one dtype: if theirs differ, the bfloat16 one as float32 in scratch.
Status InOneDType(const Exec& exec, ConstTensorView* gamma, ConstTensorView* beta) {
  if (gamma->dtype() == beta->dtype()) return OkStatus();
  ConstTensorView* const narrow = gamma->dtype() == DType::kBFloat16 ? gamma : beta;
  TE_ASSIGN_OR_RETURN(TensorView wide, exec.scratch->Allocate(DType::kFloat32, narrow->shape()));
  TE_RETURN_IF_ERROR(cuda::LaunchElementwise(exec, "layer_norm_parameter", narrow->elements(),
                                             Same(), wide.as<float>(), narrow->as<bfloat16>()));
  *narrow = wide;
  return OkStatus();
}

template <typename T, typename P>
Status Forward(const Exec& exec, const LayerNormForwardArgs& args) {
  norm::ForwardRows<T, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.x = args.x.as<T>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.beta = args.beta.as<P>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.epsilon = args.epsilon;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  rows.y = args.y.dense.as<T>();
  rows.y_stride = args.y.dense.stride(0);
  rows.mean = args.mean.defined() ? args.mean.as<float>() : nullptr;
  rows.rstd = args.rstd.defined() ? args.rstd.as<float>() : nullptr;
  return norm::LaunchForward<true>(exec, rows);
}

template <typename T, typename P>
Status Backward(const Exec& exec, const LayerNormBackwardArgs& args) {
  norm::BackwardRows<T, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.dy = args.dy.as<T>();
  rows.dy_stride = args.dy.stride(0);
  rows.x = args.x.as<T>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.mean = args.mean.as<float>();
  rows.rstd = args.rstd.as<float>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  if (args.add.defined()) {
    rows.add = args.add.as<T>();
    rows.add_stride = args.add.stride(0);
  }
  rows.dx = args.dx.dense.as<T>();
  rows.dx_stride = args.dx.dense.stride(0);
  return norm::LaunchBackward<true>(exec, rows,
                                    {.dgamma = args.dgamma,
                                     .dbeta = args.dbeta,
                                     .accumulate = args.accumulate_parameter_gradients});
}

size_t BytesOf(const TensorView& optional) { return optional.defined() ? optional.bytes() : 0; }

Status Run(const Exec& exec, const LayerNormForwardArgs& args) {
  if (args.x.dtype() == DType::kFloat32) return Forward<float, float>(exec, args);
  return args.gamma.dtype() == DType::kFloat32 ? Forward<bfloat16, float>(exec, args)
                                               : Forward<bfloat16, bfloat16>(exec, args);
}

Status Run(const Exec& exec, const LayerNormBackwardArgs& args) {
  if (args.x.dtype() == DType::kFloat32) return Backward<float, float>(exec, args);
  return args.gamma.dtype() == DType::kFloat32 ? Backward<bfloat16, float>(exec, args)
                                               : Backward<bfloat16, bfloat16>(exec, args);
}

}  // namespace

Status LayerNormForwardCuda(const Exec& exec, const LayerNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormForward(args));
  Record(exec, "layer_norm_forward", "layer_norm_forward_cuda", args.x.dtype(),
         static_cast<int64_t>(2 * args.x.bytes() + args.gamma.bytes() + args.beta.bytes() +
                              BytesOf(args.mean) + BytesOf(args.rstd)));
  ArenaScope scope(exec.scratch);
  LayerNormForwardArgs same = args;
  TE_RETURN_IF_ERROR(InOneDType(exec, &same.gamma, &same.beta));
  TE_ASSIGN_OR_RETURN(same.y.dense, DenseResult(exec, args.y, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(Run(exec, same));
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = same.y.dense, .out = args.y.quant});
}

Status LayerNormBackwardCuda(const Exec& exec, const LayerNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormBackward(args));
  const size_t tensors = args.add.defined() ? 4 : 3;
  const size_t gradients =
      (BytesOf(args.dgamma) + BytesOf(args.dbeta)) * (args.accumulate_parameter_gradients ? 2 : 1);
  Record(exec, "layer_norm_backward", "layer_norm_backward_cuda", args.x.dtype(),
         static_cast<int64_t>(tensors * args.x.bytes() + args.gamma.bytes() + args.mean.bytes() +
                              args.rstd.bytes() + gradients));
  ArenaScope scope(exec.scratch);
  LayerNormBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(Run(exec, dense));
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
