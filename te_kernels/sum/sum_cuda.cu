// The elements go to a fixed number of blocks, in double from the first addition on; a second
// kernel of one block adds their sums in order, and is all that float64 gets. Hopper converts and
// adds doubles at half its float32 rate, several times faster than memory delivers elements.
#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/sum/sum.h"

namespace te {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;        // vectors that a thread has in flight
constexpr int kMaxBlocks = 1024;  // whatever the card: the same sums on each

template <bool kSquared>
__device__ double Term(double x) {
  return kSquared ? x * x : x;
}

template <bool kSquared, int N, typename T>
__global__ void __launch_bounds__(kThreads) SumKernel(int64_t n, const T* x, double* partials) {
  __shared__ double shared[kThreads / cuda::kWarp];
  constexpr int64_t kChunk = int64_t{N} * kThreads * kUnroll;
  double sums[kUnroll] = {};
  int64_t begin = blockIdx.x * kChunk;
  for (; begin + kChunk <= n; begin += gridDim.x * kChunk) {
    float values[kUnroll][N];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      cuda::Load<N, cuda::Cache::kOnce>(x + begin + (int64_t{u} * kThreads + threadIdx.x) * N,
                                        values[u]);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int e = 0; e < N; ++e) sums[u] += Term<kSquared>(values[u][e]);
    }
  }
  // The ragged end falls to one block.
  for (int64_t i = begin + threadIdx.x; i < n; i += kThreads)
    sums[0] += Term<kSquared>(cuda::ToFloat(x[i]));
  const double sum = cuda::BlockSum<kThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]), shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <bool kSquared>
__global__ void __launch_bounds__(kMaxBlocks)
    SumDoublesKernel(int64_t n, const double* x, bool accumulate, double* out) {
  __shared__ double shared[kMaxBlocks / cuda::kWarp];
  double own = 0;
  for (int64_t i = threadIdx.x; i < n; i += kMaxBlocks) own += Term<kSquared>(x[i]);
  const double sum = cuda::BlockSum<kMaxBlocks>(own, shared);
  if (threadIdx.x == 0) *out = accumulate ? *out + sum : sum;
}

template <bool kSquared>
Status SumDoubles(const Exec& exec, int64_t n, const double* x, const SumArgs& args) {
  SumDoublesKernel<kSquared>
      <<<1, kMaxBlocks, 0, cuda::StreamOf(exec)>>>(n, x, args.accumulate, args.out);
  return cuda::LaunchStatus("sum of doubles");
}

template <bool kSquared, int N, typename T>
Status Launch(const Exec& exec, const SumArgs& args) {
  const int64_t n = args.x.elements();
  constexpr int64_t kChunk = int64_t{N} * kThreads * kUnroll;
  const int blocks = static_cast<int>(std::min<int64_t>(kMaxBlocks, (n + kChunk - 1) / kChunk));
  ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(TensorView scratch, exec.scratch->Allocate(DType::kFloat64, {kMaxBlocks}));
  double* const partials = scratch.as<double>();
  if (blocks > 0) {
    SumKernel<kSquared, N>
        <<<blocks, kThreads, 0, cuda::StreamOf(exec)>>>(n, args.x.as<T>(), partials);
    TE_RETURN_IF_ERROR(cuda::LaunchStatus("sum"));
  }
  return SumDoubles<false>(exec, blocks, partials, args);
}

template <typename T>
Status Run(const Exec& exec, const SumArgs& args) {
  constexpr int kN = cuda::kLanes<T>;
  if (cuda::Aligned<kN>(args.x.as<T>(), 0)) {
    return args.squared ? Launch<true, kN, T>(exec, args) : Launch<false, kN, T>(exec, args);
  }
  return args.squared ? Launch<true, 1, T>(exec, args) : Launch<false, 1, T>(exec, args);
}

}  // namespace

Status SumCuda(const Exec& exec, const SumArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSum(args));
  Record(exec, "sum", "sum_cuda", args.x.dtype(), static_cast<int64_t>(args.x.bytes()));
  switch (args.x.dtype()) {
    case DType::kFloat64: {
      const int64_t n = args.x.elements();
      const double* x = args.x.as<double>();
      return args.squared ? SumDoubles<true>(exec, n, x, args)
                          : SumDoubles<false>(exec, n, x, args);
    }
    case DType::kFloat32:
      return Run<float>(exec, args);
    default:
      return Run<bfloat16>(exec, args);
  }
}

}  // namespace te
