#include "te_kernels/count_labels/count_labels.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"

namespace te {
namespace {

// One block: labels are kilobytes, and integers sum to the same in any order.
constexpr int kThreads = 1024;

__global__ void __launch_bounds__(kThreads)
    CountLabelsKernel(const int32_t* labels, int64_t tokens, int32_t ignore_index, int64_t* count) {
  __shared__ int warps[kThreads / cuda::kWarp];
  int mine = 0;
  for (int64_t t = threadIdx.x; t < tokens; t += kThreads) mine += labels[t] != ignore_index;
  mine = __reduce_add_sync(0xffffffffu, mine);
  if (threadIdx.x % cuda::kWarp == 0) warps[threadIdx.x / cuda::kWarp] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int64_t sum = 0;
  for (const int warp : warps) sum += warp;
  *count += sum;
}

}  // namespace

Status CountLabelsCuda(const Exec& exec, const CountLabelsArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCountLabels(args));
  Record(exec, "count_labels", "count_labels_cuda", DType::kInt32,
         static_cast<int64_t>(args.labels.bytes() + sizeof(int64_t)));
  CountLabelsKernel<<<1, kThreads, 0, cuda::StreamOf(exec)>>>(
      args.labels.as<int32_t>(), args.labels.elements(), args.ignore_index, args.count);
  return cuda::LaunchStatus("count_labels");
}

}  // namespace te
