// Fills a dense tensor with random numbers of a named sequence (philox.h): normal(mean, std) by Box
// and Muller from numbers 2i and 2i + 1 for elements 2i (cosine) and 2i + 1 (sine), or uniform in
// [low, high). Element i depends on (seed, stream, offset, i) alone. dtypes {float32, bfloat16}. u1
// = (number + 0.5) 2^-32, u2 likewise, in double. Uniform: low + (high - low)
// Philox::ToUniform(number i); what would round up to high becomes the number below it.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/view.h"

namespace te {

enum class RandomDistribution { kNormal, kUniform };

struct RandomFillArgs {
  RandomDistribution distribution = RandomDistribution::kNormal;
  float a = 0;  // normal: mean; uniform: low
  float b = 1;  // normal: standard deviation; uniform: high
  RandomState random;
  TensorView out;
};

Status ValidateRandomFill(const RandomFillArgs& args);
Status RandomFillCpu(const Exec& exec, const RandomFillArgs& args);
Status RandomFillCuda(const Exec& exec, const RandomFillArgs& args);

}  // namespace te
