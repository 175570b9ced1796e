// For operations that made a tensor's amax along with the tensor.
#pragma once

#include "te_kernels/quantize/quantize.h"

namespace te::cuda {

// QuantizeCuda with kTensorCurrent whose *out.amax is already that of x: reads x once, not twice.
Status QuantizeWithAmax(const Exec& exec, const QuantizeArgs& args);

}  // namespace te::cuda
