// RoPE from codes, or into a quantized sink, without a fused kernel: what both backends share.
#pragma once

#include <array>

#include "te_kernels/base/sink.h"
#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rope/rope.h"

namespace te::rope {

inline int64_t RotatedHeads(const RopeArgs& args) {
  return args.num_rotated_heads < 0 ? args.x.dim(2) : args.num_rotated_heads;
}

// The position of token [i, j] of x is, at i * out[0] + j * out[1], an element of `positions`, or
// what is added to start_position where these are absent.
inline std::array<int64_t, 2> PositionStrides(const RopeArgs& args) {
  std::array<int64_t, 2> out = {0, 1};
  if (args.positions.defined()) out = {args.positions.stride(0), args.positions.stride(1)};
  if (args.sequence_first) std::swap(out[0], out[1]);
  return out;
}

// Whether [B, S, n, d] is the matrix [B S, n d] with one row stride.
inline bool IsMatrix(const ConstTensorView& t) {
  return (t.dim(2) == 1 || t.stride(2) == t.dim(3)) &&
         (t.dim(0) == 1 || t.dim(1) == 1 || t.stride(0) == t.dim(1) * t.stride(1));
}
template <typename View>
View AsMatrix(const View& t) {
  const int64_t row_stride = t.dim(1) == 1 ? t.stride(0) : t.stride(1);
  return View(t.data(), t.dtype(), {t.dim(0) * t.dim(1), t.dim(2) * t.dim(3)}, {row_stride, 1});
}

// The same rotation of the codes' values, which dequantize(DequantizeArgs) writes to y's memory, or
// to scratch of the caller's ArenaScope.
template <typename Dequantize>
StatusOr<RopeArgs> OfValues(const Exec& exec, const RopeArgs& args, Dequantize dequantize) {
  if (!args.codes()) return args;
  RopeArgs out = args;
  TensorView values = args.y.dense;
  if (!values.defined() || !IsMatrix(values)) {
    TE_ASSIGN_OR_RETURN(values, exec.scratch->Allocate(args.x_dtype, args.x.shape()));
  }
  out.x = values;
  out.x_format = QuantFormat::kNone;
  const TensorView matrix = AsMatrix(values);
  QuantSpec codes;
  codes.format = args.x_format;
  codes.scale_inv = const_cast<float*>(args.x_scale_inv);  // read
  codes.rowwise_data =
      TensorView(const_cast<void*>(args.x.data()), DType::kUInt8, matrix.shape());  // read
  TE_RETURN_IF_ERROR(dequantize(DequantizeArgs{.x = codes, .y = matrix}));
  return out;
}

// run(args with a dense y alone) for all that the sink wants, quantize(QuantizeArgs) between.
template <typename Run, typename Quantize>
Status RunThenQuantize(const Exec& exec, const RopeArgs& args, Run run, Quantize quantize) {
  if (!args.y.quantized()) return run(args);
  const ArenaScope scope(exec.scratch);
  const bool wants_dense = args.y.dense.defined();
  const bool in_place = wants_dense && IsMatrix(args.y.dense);
  RopeArgs dense = args;
  dense.y = Sink(args.y.dense);
  if (!in_place) {
    TE_ASSIGN_OR_RETURN(dense.y.dense, exec.scratch->Allocate(args.x.dtype(), args.x.shape()));
  }
  TE_RETURN_IF_ERROR(run(dense));
  TE_RETURN_IF_ERROR(quantize(QuantizeArgs{.x = AsMatrix(dense.y.dense), .out = args.y.quant}));
  if (in_place || !wants_dense) return OkStatus();
  // Heads that do not lie side by side are written last: y may be x.
  dense.y.dense = args.y.dense;
  return run(dense);
}

}  // namespace te::rope
