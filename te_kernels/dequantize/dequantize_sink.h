// What both backends share: the codes that are read, and a quantized sink without a fused kernel.
#pragma once

#include "te_kernels/base/sink.h"
#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/quantize/quantize.h"

namespace te::dequantize {

// Of the orientation that is read.
inline const TensorView& Codes(const DequantizeArgs& args) {
  return args.orientation == Orientation::kRowwise ? args.x.rowwise_data : args.x.columnwise_data;
}

// run(args with a dense y alone), then quantize(QuantizeArgs) of it if the sink wants that.
template <typename Run, typename Quantize>
Status RunThenQuantize(const Exec& exec, const DequantizeArgs& args, Run run, Quantize quantize) {
  if (!args.y.quantized()) return run(args);
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const TensorView y,
                      DenseResult(exec, args.y, DequantizedDType(args), DequantizedShape(args)));
  DequantizeArgs dense = args;
  dense.y = Sink(y);
  TE_RETURN_IF_ERROR(run(dense));
  return quantize(QuantizeArgs{.x = y, .out = args.y.quant});
}

}  // namespace te::dequantize
