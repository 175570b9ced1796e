#include "te_kernels/quantize/quantize_cuda.cuh"

namespace te::cuda {

Status QuantizeTensor(const Exec& exec, const QuantizeArgs& args) {
  return LaunchQuantize<QuantScaling::kTensor>(exec, args);
}

Status QuantizeTensorCurrent(const Exec& exec, const QuantizeArgs& args) {
  return LaunchQuantize<QuantScaling::kTensorCurrent>(exec, args);
}

}  // namespace te::cuda
