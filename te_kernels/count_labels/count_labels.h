// How many tokens count: *count += number of t with labels[t] != ignore_index. labels int32 [T],
// dense; count: device memory. The divisor of a step's loss and gradients
// (StepScalars::token_count) never leaves the device.
#pragma once

#include <cstdint>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct CountLabelsArgs {
  ConstTensorView labels;
  int32_t ignore_index = -100;
  int64_t* count = nullptr;
};

Status ValidateCountLabels(const CountLabelsArgs& args);
Status CountLabelsCpu(const Exec& exec, const CountLabelsArgs& args);
Status CountLabelsCuda(const Exec& exec, const CountLabelsArgs& args);

}  // namespace te
