// The update of delayed scaling: new scales from the history of amaxes, for n tensors at once.
// Casts write the current amax of tensor i into history[0, i]. With len = history.dim(0), for each
// i (`fused amax and scale update` of Transformer Engine's delayed_scaling.cu):
//
//   last = history[0, i]
//   amax = last (kMostRecent), or max(history[:, i]) over all len entries as they are before the
//          roll, NaN not counted, 0 when last == 0 (kMax)
//   if last != 0: history[j, i] = history[j + 1, i] for j < len - 1, history[len - 1, i] = last
//   history[0, i] = 0
//   if amax is finite and > 0: scale[i] = (fp8_max * 2^-margin) / amax; infinite: the largest
//   float32.  Else scale[i] keeps its value.
//
// So [c, 1, 2, 3] becomes [0, 2, 3, c]. len 1: the history is cleared. history: float32 [len, n],
// dense; scale: float32 [n]. Arithmetic in float32; CPU and CUDA give the same bits.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

enum class AmaxComputeAlgo : int32_t { kMax = 0, kMostRecent = 1 };

struct DelayedScalingArgs {
  TensorView history;
  TensorView scale;
  AmaxComputeAlgo algo = AmaxComputeAlgo::kMax;
  int margin = 0;
  QuantFormat format = QuantFormat::kFloat8E4M3;  // of all n tensors: gives fp8_max
};

Status ValidateDelayedScaling(const DelayedScalingArgs& args);
Status DelayedScalingCpu(const Exec& exec, const DelayedScalingArgs& args);
Status DelayedScalingCuda(const Exec& exec, const DelayedScalingArgs& args);

}  // namespace te
