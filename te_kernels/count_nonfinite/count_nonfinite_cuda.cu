#include <algorithm>

#include "te_kernels/count_nonfinite/count_nonfinite.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"

namespace te {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // vectors of a thread in flight
constexpr int kMaxBlocks = 2048;

// How many of the elements in 32 bits, one float32 or two bfloat16, are no numbers.
template <bool kFloat32>
__device__ unsigned int CountIn(uint32_t word, uint32_t least) {
  if constexpr (kFloat32) return (word & 0x7fffffffu) >= least;
  return ((word << 16 & 0x7fffffffu) >= least) + ((word & 0x7fff0000u) >= least);
}

// Each byte is read once: of a 7B in bfloat16 13.5 GB, 3 ms at 4.3 TB/s. Integers sum to the same
// in any order.
template <bool kFloat32>
__global__ void __launch_bounds__(kThreads)
    CountKernel(const uint4* x, int64_t vectors, uint32_t least, unsigned long long* count) {
  constexpr int64_t kChunk = int64_t{kThreads} * kUnroll;
  unsigned int found = 0;
  for (int64_t begin = blockIdx.x * kChunk + threadIdx.x; begin < vectors;
       begin += gridDim.x * kChunk) {
    uint4 values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = begin + int64_t{u} * kThreads;
      values[u] = i < vectors ? __ldcs(x + i) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      found += CountIn<kFloat32>(values[u].x, least) + CountIn<kFloat32>(values[u].y, least) +
               CountIn<kFloat32>(values[u].z, least) + CountIn<kFloat32>(values[u].w, least);
    }
  }
  found = __reduce_add_sync(0xffffffffu, found);
  if (threadIdx.x % cuda::kWarp == 0 && found != 0)
    atomicAdd(count, static_cast<unsigned long long>(found));
}

// What stands before the first aligned vector and behind the last one.
template <typename Word>
__global__ void CountEndsKernel(const Word* x, int64_t n, int64_t head, int64_t tail_begin,
                                uint32_t least, unsigned long long* count) {
  const int64_t t = threadIdx.x;
  const int64_t i = t < head ? t : tail_begin + (t - head);
  if (i >= n) return;
  constexpr int kShift = 32 - 8 * static_cast<int>(sizeof(Word));
  if ((static_cast<uint32_t>(x[i]) << kShift & 0x7fffffffu) >= least) atomicAdd(count, 1ull);
}

template <typename Word>
Status Count(const Exec& exec, const CountNonfiniteArgs& args) {
  constexpr int64_t kLanes = 16 / sizeof(Word);
  const int64_t n = args.x.elements();
  const auto* x = static_cast<const Word*>(args.x.data());
  const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x) % 16 / sizeof(Word));
  const int64_t head = std::min(n, misaligned == 0 ? 0 : kLanes - misaligned);
  const int64_t vectors = (n - head) / kLanes, tail_begin = head + vectors * kLanes;
  const uint32_t least = LeastNonfiniteBits(args.as);
  auto* count = reinterpret_cast<unsigned long long*>(args.count);
  if (vectors > 0) {
    constexpr int64_t kChunk = int64_t{kThreads} * kUnroll;
    const auto blocks = std::min<int64_t>(kMaxBlocks, (vectors + kChunk - 1) / kChunk);
    CountKernel<sizeof(Word) == 4>
        <<<static_cast<unsigned int>(blocks), kThreads, 0, cuda::StreamOf(exec)>>>(
            reinterpret_cast<const uint4*>(x + head), vectors, least, count);
    TE_RETURN_IF_ERROR(cuda::LaunchStatus("count_nonfinite"));
  }
  if (head + (n - tail_begin) > 0) {  // fewer than 16
    CountEndsKernel<Word><<<1, 32, 0, cuda::StreamOf(exec)>>>(x, n, head, tail_begin, least, count);
  }
  return cuda::LaunchStatus("count_nonfinite: ends");
}

}  // namespace

Status CountNonfiniteCuda(const Exec& exec, const CountNonfiniteArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCountNonfinite(args));
  if (args.x.elements() == 0) return OkStatus();
  Record(exec, "count_nonfinite", "count_nonfinite_cuda", args.x.dtype(),
         static_cast<int64_t>(args.x.bytes()));
  return args.x.dtype() == DType::kFloat32 ? Count<uint32_t>(exec, args)
                                           : Count<uint16_t>(exec, args);
}

}  // namespace te
