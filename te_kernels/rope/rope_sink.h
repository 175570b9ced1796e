// RoPE into a quantized sink without a fused kernel: what both backends share.
#pragma once

#include "te_kernels/base/sink.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/rope/rope.h"

namespace te::rope {

inline int64_t RotatedHeads(const RopeArgs& args) {
  return args.num_rotated_heads < 0 ? args.x.dim(2) : args.num_rotated_heads;
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
