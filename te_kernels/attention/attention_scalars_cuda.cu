#include "te_kernels/attention/attention_scalars_cuda.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te {
namespace {

struct Pairs {
  ScalarPair at[kMaxScalarPairs];
};

__global__ void InvertScalarsKernel(Pairs pairs) {
  const ScalarPair& pair = pairs.at[threadIdx.x];
  if (pair.to != nullptr) *pair.to = __fdiv_rn(1.0f, *pair.from);
}

__global__ void AccumulateAmaxesKernel(Pairs pairs) {
  for (const ScalarPair& pair : pairs.at)
    if (pair.to != nullptr) *pair.to = fmaxf(*pair.to, *pair.from);
}

Pairs ToKernel(const ScalarPairs& pairs) {
  Pairs out;
  for (int i = 0; i < kMaxScalarPairs; ++i) out.at[i] = pairs[static_cast<size_t>(i)];
  return out;
}

}  // namespace

Status InvertScalarsCuda(const Exec& exec, const ScalarPairs& pairs) {
  InvertScalarsKernel<<<1, kMaxScalarPairs, 0, cuda::StreamOf(exec)>>>(ToKernel(pairs));
  return cuda::LaunchStatus("invert_scalars");
}

Status AccumulateAmaxesCuda(const Exec& exec, const ScalarPairs& pairs) {
  AccumulateAmaxesKernel<<<1, 1, 0, cuda::StreamOf(exec)>>>(ToKernel(pairs));
  return cuda::LaunchStatus("accumulate_amaxes");
}

}  // namespace te
