#include "te_kernels/quantize/quantize_cuda.cuh"

namespace te::cuda {

Status QuantizeBlocks(const Exec& exec, const QuantizeArgs& args) {
  return args.out.scaling == QuantScaling::kBlock1x128
             ? LaunchQuantize<QuantScaling::kBlock1x128>(exec, args)
             : LaunchQuantize<QuantScaling::kBlock128x128>(exec, args);
}

}  // namespace te::cuda
