#include "te_kernels/attention/sequence_lengths_cuda.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"

namespace te {
namespace {

// One warp a sequence.
__global__ void SequenceLengthsKernel(const uint8_t* padding, int64_t row_stride,
                                      int64_t key_stride, int num_keys, int num_queries,
                                      int32_t* lengths) {
  const uint8_t* row = padding + blockIdx.x * row_stride;
  int count = 0;
  for (int j = threadIdx.x; j < num_keys; j += cuda::kWarp) count += row[j * key_stride] == 0;
  count = __reduce_add_sync(0xffffffffu, count);
  if (threadIdx.x != 0) return;
  lengths[blockIdx.x] = num_queries;
  lengths[gridDim.x + blockIdx.x] = count;
}

}  // namespace

Status SequenceLengthsCuda(const Exec& exec, const ConstTensorView& padding, int64_t num_queries,
                           const TensorView& lengths) {
  SequenceLengthsKernel<<<static_cast<unsigned int>(padding.dim(0)), cuda::kWarp, 0,
                          cuda::StreamOf(exec)>>>(
      padding.as<uint8_t>(), padding.stride(0), padding.stride(1), static_cast<int>(padding.dim(1)),
      static_cast<int>(num_queries), lengths.as<int32_t>());
  return cuda::LaunchStatus("sequence_lengths");
}

}  // namespace te
