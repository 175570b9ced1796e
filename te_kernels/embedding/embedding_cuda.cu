#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/embedding/embedding.h"

namespace te {
namespace {

constexpr int kThreads = 64;  // of one block, which takes kThreads vectors of a row
constexpr int kUnroll = 4;    // rows in flight

// grid: (tokens, blocks of a row). Reads and writes T H elements once.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const int32_t* ids, const T* table, int64_t rows, int64_t hidden, T* out) {
  const int64_t t = blockIdx.x, column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * N;
  if (column >= hidden) return;
  const int32_t id = ids[t];
  float values[N];
  if (id >= 0 && id < rows) {
    cuda::Load<N>(table + id * hidden + column, values);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = __int_as_float(0x7fc00000);
  }
  cuda::Store<N>(out + t * hidden + column, values);
}

__global__ void CountKernel(uint32_t* tokens, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) tokens[i] = static_cast<uint32_t>(i);
}

// ids and tokens sorted by id, tokens of one id in their order. The block of the first of them sums
// the run: in float32, in that order, from what is there when it accumulates.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    SumRunsKernel(const uint32_t* ids, const uint32_t* tokens, int64_t count, const T* dout,
                  int64_t rows, int64_t hidden, bool accumulate, T* dtable) {
  const int64_t begin = blockIdx.x, column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * N;
  const uint32_t id = ids[begin];
  if (column >= hidden || id >= rows || (begin > 0 && ids[begin - 1] == id)) return;
  int64_t end = begin + 1;
  while (end < count && ids[end] == id) ++end;
  T* to = dtable + static_cast<int64_t>(id) * hidden + column;
  float sum[N] = {};
  if (accumulate) cuda::Load<N>(to, sum);
  int64_t i = begin;
  for (; i + kUnroll <= end; i += kUnroll) {
    float values[kUnroll][N];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      cuda::Load<N>(dout + tokens[i + u] * hidden + column, values[u]);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += values[u][e];
  }
  for (; i < end; ++i) {
    float values[N];
    cuda::Load<N>(dout + tokens[i] * hidden + column, values);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += values[e];
  }
  cuda::Store<N>(to, sum);
}

template <int N>
dim3 GridOf(int64_t tokens, int64_t hidden) {
  return dim3(static_cast<unsigned int>(tokens),
              static_cast<unsigned int>((hidden + N * kThreads - 1) / (N * kThreads)));
}

template <typename T>
bool Fits(const ConstTensorView& a, const ConstTensorView& b) {
  constexpr int kN = cuda::kLanes<T>;
  return cuda::Aligned<kN>(a.as<T>(), a.dim(1)) && cuda::Aligned<kN>(b.as<T>(), b.dim(1));
}

template <int N, typename T>
Status Forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  const int64_t tokens = args.out.dim(0), hidden = args.out.dim(1);
  ForwardKernel<N><<<GridOf<N>(tokens, hidden), kThreads, 0, cuda::StreamOf(exec)>>>(
      args.ids.as<int32_t>(), args.table.as<T>(), args.table.dim(0), hidden, args.out.as<T>());
  return cuda::LaunchStatus("embedding_forward");
}

template <typename T>
Status Forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  return Fits<T>(args.table, args.out) ? Forward<cuda::kLanes<T>, T>(exec, args)
                                       : Forward<1, T>(exec, args);
}

struct Sorted {
  uint32_t* ids;
  uint32_t* tokens;
};

// Tokens in the order of their ids; stable, hence in their own order within one id. The library's
// sort is deterministic, and needs no host work.
StatusOr<Sorted> SortByIds(const Exec& exec, const ConstTensorView& ids) {
  const int64_t n = ids.elements();
  const cudaStream_t stream = cuda::StreamOf(exec);
  TE_ASSIGN_OR_RETURN(const TensorView buffer, exec.scratch->Allocate(DType::kInt32, {3, n}));
  auto* tokens_in = static_cast<uint32_t*>(buffer.data());
  const Sorted sorted = {tokens_in + n, tokens_in + 2 * n};
  CountKernel<<<static_cast<unsigned int>((n + 255) / 256), 256, 0, stream>>>(tokens_in, n);
  // All bits: an id outside the table must not look like one inside.
  const auto* keys = static_cast<const uint32_t*>(ids.data());
  size_t bytes = 0;
  TE_RETURN_IF_ERROR(cuda::ToStatus(
      cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted.ids, tokens_in, sorted.tokens,
                                      static_cast<int>(n), 0, 32, stream),
      "sort of token ids"));
  TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(bytes));
  TE_RETURN_IF_ERROR(cuda::ToStatus(
      cub::DeviceRadixSort::SortPairs(workspace, bytes, keys, sorted.ids, tokens_in, sorted.tokens,
                                      static_cast<int>(n), 0, 32, stream),
      "sort of token ids"));
  return sorted;
}

template <int N, typename T>
Status Backward(const Exec& exec, const EmbeddingBackwardArgs& args, const Sorted& sorted) {
  const int64_t tokens = args.ids.elements(), hidden = args.dtable.dim(1);
  SumRunsKernel<N><<<GridOf<N>(tokens, hidden), kThreads, 0, cuda::StreamOf(exec)>>>(
      sorted.ids, sorted.tokens, tokens, args.dout.as<T>(), args.dtable.dim(0), hidden,
      args.accumulate, args.dtable.as<T>());
  return cuda::LaunchStatus("embedding_backward");
}

template <typename T>
Status Backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  TE_ASSIGN_OR_RETURN(const Sorted sorted, SortByIds(exec, args.ids));
  return Fits<T>(args.dout, args.dtable) ? Backward<cuda::kLanes<T>, T>(exec, args, sorted)
                                         : Backward<1, T>(exec, args, sorted);
}

}  // namespace

Status EmbeddingForwardCuda(const Exec& exec, const EmbeddingForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateEmbeddingForward(args));
  if (args.out.elements() == 0) return OkStatus();
  Record(exec, "embedding_forward", "embedding_forward_cuda", args.out.dtype(),
         static_cast<int64_t>(2 * args.out.bytes()));
  return args.out.dtype() == DType::kFloat32 ? Forward<float>(exec, args)
                                             : Forward<bfloat16>(exec, args);
}

Status EmbeddingBackwardCuda(const Exec& exec, const EmbeddingBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateEmbeddingBackward(args));
  if (args.dtable.elements() == 0) return OkStatus();
  Record(exec, "embedding_backward", "embedding_backward_cuda", args.dtable.dtype(),
         static_cast<int64_t>(args.dout.bytes() + args.dtable.bytes()));
  if (!args.accumulate) {
    TE_RETURN_IF_ERROR(cuda::ToStatus(
        cudaMemsetAsync(args.dtable.data(), 0, args.dtable.bytes(), cuda::StreamOf(exec)),
        "embedding_backward: zero"));
  }
  if (args.ids.elements() == 0) return OkStatus();
  const ArenaScope scope(exec.scratch);
  return args.dtable.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                                : Backward<bfloat16>(exec, args);
}

}  // namespace te
