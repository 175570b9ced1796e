#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/embedding/embedding.h"

namespace te {
namespace {

constexpr int kThreads = 128;
constexpr int kVectors = 4;  // of a thread of the forward pass, in flight
// Of the sums: vectors of a thread, and tokens in flight.
constexpr int kSumVectors = 2;
constexpr int kSumTokens = 4;
// A row with more tokens than this is a long one: of the longest, four tokens at a time would take
// as long as everything else together.
constexpr uint32_t kLongRun = 128;
// Of the sums of long rows: threads, columns of a block, and vectors of a thread in flight.
constexpr int kLongThreads = 256;
constexpr int kLongColumns = 64;
constexpr int kLongVectors = 8;

// N elements as they lie in memory.
template <int N, typename T>
using RawOf = typename cuda::Raw<N* static_cast<int>(sizeof(T))>::type;

// A block copies one row, kVectors * kThreads vectors at a time: T H elements are read and written
// once. 2048 rows of 8 KiB are one wave of an H200.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const int32_t* ids, const T* table, int64_t rows, int64_t hidden, T* out) {
  cuda::StartAfterEarlierKernels();
  using Vector = RawOf<N, T>;
  const int64_t t = blockIdx.x;
  const int32_t id = ids[t];
  const bool inside = id >= 0 && id < rows;
  const auto* from = reinterpret_cast<const Vector*>(table + (inside ? id : 0) * hidden);
  auto* to = reinterpret_cast<Vector*>(out + t * hidden);
  const int64_t vectors = hidden / N;
  constexpr int64_t kStep = int64_t{kThreads} * kVectors;
  float nan[N];
#pragma unroll
  for (int e = 0; e < N; ++e) nan[e] = __int_as_float(0x7fc00000);
  for (int64_t begin = threadIdx.x; begin < vectors; begin += kStep) {
    Vector values[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t i = begin + v * kThreads;
      if (inside && i < vectors) values[v] = __ldg(from + i);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t i = begin + v * kThreads;
      if (i >= vectors) break;
      if (inside) {
        __stwb(to + i, values[v]);
      } else {
        cuda::StoreGlobal<N>(out + t * hidden + i * N, nan);
      }
    }
  }
}

// What is sorted: ids and their tokens. Those outside the table and those of the padding row stand
// behind the others, all as `rows`: no row's sum takes them in.
__global__ void KeysKernel(const int32_t* ids, int64_t n, int64_t rows, int64_t padding_idx,
                           uint32_t* keys, uint32_t* tokens) {
  cuda::StartAfterEarlierKernels();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int64_t id = ids[i];
  keys[i] = static_cast<uint32_t>(id >= 0 && id < rows && id != padding_idx ? id : rows);
  tokens[i] = static_cast<uint32_t>(i);
}

// begins[r] = where the tokens of row r begin among the sorted ids, for r <= rows.
__global__ void BeginsKernel(const uint32_t* ids, int64_t n, int64_t rows, uint32_t* begins) {
  cuda::StartAfterEarlierKernels();
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row > rows) return;
  int64_t low = 0, high = n;  // the first id >= row lies in [low, high]
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ids[middle] < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  begins[row] = static_cast<uint32_t>(low);
}

// Sums the tokens of a row of dtable in their order, in float32, from what is there when it
// accumulates. A block is a part of the long rows: it works if the row that stands at its place is
// long and this is the first such place of it. All threads load while the first kLongColumns add
// what has been loaded before, one column each: an addition waits for the one before it, a load for
// nothing.
template <int N, typename T, bool kAccumulate>
__global__ void __launch_bounds__(kLongThreads)
    SumLongRowsKernel(const uint32_t* ids, const uint32_t* begins, const uint32_t* tokens,
                      const T* dout, int64_t rows, int64_t hidden, T* dtable) {
  cuda::StartAfterEarlierKernels();
  using Vector = RawOf<N, T>;
  constexpr int kRowVectors = kLongColumns / N;
  constexpr int kPassRows = kLongThreads / kRowVectors;
  constexpr int kTileRows = kPassRows * kLongVectors;
  __shared__ alignas(16) T tile[kTileRows * kLongColumns];

  const uint32_t at = blockIdx.x * kLongRun;
  const int64_t row = ids[at];
  if (row >= rows) return;
  const uint32_t begin = begins[row], end = begins[row + 1];
  if (end - begin <= kLongRun || at - begin >= kLongRun) return;

  const int64_t first_column = int64_t{blockIdx.y} * kLongColumns;
  const int64_t column = first_column + threadIdx.x % kRowVectors * N;
  const uint32_t place = threadIdx.x / kRowVectors;  // of the thread's first token in a tile
  uint32_t token[kLongVectors] = {};
  Vector values[kLongVectors] = {};
  const auto look_up = [&](uint32_t from) {
#pragma unroll
    for (int v = 0; v < kLongVectors; ++v) {
      const uint32_t i = from + place + v * kPassRows;
      if (i < end) token[v] = tokens[i];
    }
  };
  const auto load = [&](uint32_t from) {
#pragma unroll
    for (int v = 0; v < kLongVectors; ++v) {
      if (column >= hidden || from + place + v * kPassRows >= end) continue;
      values[v] =
          __ldcs(reinterpret_cast<const Vector*>(dout + int64_t{token[v]} * hidden + column));
    }
  };
  const int64_t own = first_column + threadIdx.x;
  const bool adds = threadIdx.x < kLongColumns && own < hidden;
  T* const to = dtable + row * hidden + own;
  float sum = kAccumulate && adds ? cuda::ToFloat(*to) : 0.0f;
  look_up(begin);
  load(begin);
  look_up(begin + kTileRows);
  for (uint32_t from = begin; from < end; from += kTileRows) {
    __syncthreads();  // the tile before has been added
#pragma unroll
    for (int v = 0; v < kLongVectors; ++v)
      reinterpret_cast<Vector*>(tile)[threadIdx.x + v * kLongThreads] = values[v];
    __syncthreads();
    load(from + kTileRows);
    look_up(from + 2 * kTileRows);
    if (!adds) continue;
    const uint32_t count = min(end - from, static_cast<uint32_t>(kTileRows));
#pragma unroll 8
    for (uint32_t i = 0; i < count; ++i) sum += cuda::ToFloat(tile[i * kLongColumns + threadIdx.x]);
  }
  if (adds) *to = cuda::FromFloat<T>(sum);
}

// The same for the other rows, kSumVectors * kThreads vectors of one, begin to end.
template <int N, typename T, bool kAccumulate>
__device__ void SumRow(uint32_t begin, uint32_t end, const uint32_t* tokens, const T* dout,
                       int64_t hidden, T* to) {
  const int64_t vectors = hidden / N;
  const int64_t first = int64_t{blockIdx.y} * kThreads * kSumVectors + threadIdx.x;
  float sum[kSumVectors][N] = {};
  if constexpr (kAccumulate) {
#pragma unroll
    for (int v = 0; v < kSumVectors; ++v) {
      const int64_t at = first + v * kThreads;
      if (at < vectors) cuda::Load<N>(to + at * N, sum[v]);
    }
  }
  for (uint32_t i = begin; i < end; i += kSumTokens) {
    RawOf<N, T> values[kSumTokens][kSumVectors];
#pragma unroll
    for (int u = 0; u < kSumTokens; ++u) {
      if (i + u >= end) break;
      const auto* from =
          reinterpret_cast<const RawOf<N, T>*>(dout + int64_t{tokens[i + u]} * hidden);
#pragma unroll
      for (int v = 0; v < kSumVectors; ++v)
        if (first + v * kThreads < vectors) values[u][v] = __ldcs(from + first + v * kThreads);
    }
#pragma unroll
    for (int u = 0; u < kSumTokens; ++u) {
      if (i + u >= end) break;
#pragma unroll
      for (int v = 0; v < kSumVectors; ++v) {
        float terms[N];
        cuda::Unpack<T>(values[u][v], terms);
#pragma unroll
        for (int e = 0; e < N; ++e) sum[v][e] += terms[e];
      }
    }
  }
#pragma unroll
  for (int v = 0; v < kSumVectors; ++v) {
    const int64_t at = first + v * kThreads;
    if (at < vectors) cuda::StoreGlobal<N>(to + at * N, sum[v]);
  }
}

// A block is one row, and a row without tokens becomes 0: each byte of dout is read, and each of
// dtable written, once. When it accumulates, a block is one sorted token, and works if that is the
// first of its row. It runs beside SumLongRowsKernel, whose rows it leaves alone.
template <int N, typename T, bool kAccumulate>
__global__ void __launch_bounds__(kThreads)
    SumRowsKernel(const uint32_t* ids, const uint32_t* begins, const uint32_t* tokens,
                  const T* dout, int64_t rows, int64_t hidden, T* dtable) {
  cuda::StartBesideEarlierKernels();
  const int64_t row = kAccumulate ? ids[blockIdx.x] : blockIdx.x;
  if (row < rows && (!kAccumulate || begins[row] == blockIdx.x)) {
    const uint32_t begin = begins[row], end = begins[row + 1];
    if (end - begin <= kLongRun)
      SumRow<N, T, kAccumulate>(begin, end, tokens, dout, hidden, dtable + row * hidden);
  }
  cuda::EndAfterEarlierKernels();
}

unsigned int BlocksOf(int64_t n) { return static_cast<unsigned int>((n + 255) / 256); }

template <typename T>
bool Fits(const ConstTensorView& a, const ConstTensorView& b) {
  constexpr int kN = cuda::kLanes<T>;
  return cuda::Aligned<kN>(a.as<T>(), a.dim(1)) && cuda::Aligned<kN>(b.as<T>(), b.dim(1));
}

template <int N, typename T>
Status Forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  cuda::LaunchOverlapping(exec, ForwardKernel<N, T>,
                          dim3(static_cast<unsigned int>(args.out.dim(0))), dim3(kThreads), {},
                          args.ids.as<int32_t>(), args.table.as<T>(), args.table.dim(0),
                          args.out.dim(1), args.out.as<T>());
  return cuda::LaunchStatus("embedding_forward");
}

template <typename T>
Status Forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  return Fits<T>(args.table, args.out) ? Forward<cuda::kLanes<T>, T>(exec, args)
                                       : Forward<1, T>(exec, args);
}

struct Sorted {
  uint32_t* ids;
  uint32_t* begins;  // [rows + 1], of each row's tokens
  uint32_t* tokens;
};

// Tokens in the order of their ids; stable, hence in their own order within one id. The library's
// sort is deterministic, and needs no host work.
StatusOr<Sorted> SortByIds(const Exec& exec, const ConstTensorView& ids, int64_t rows,
                           int64_t padding_idx) {
  const int64_t n = ids.elements();
  TE_ASSIGN_OR_RETURN(const TensorView buffer,
                      exec.scratch->Allocate(DType::kInt32, {4 * n + rows + 1}));
  auto* keys = static_cast<uint32_t*>(buffer.data());
  uint32_t *tokens = keys + n, *sorted_keys = keys + 2 * n;
  const Sorted sorted = {.ids = sorted_keys, .begins = keys + 4 * n, .tokens = keys + 3 * n};
  cuda::LaunchOverlapping(exec, KeysKernel, dim3(BlocksOf(n)), dim3(256), {}, ids.as<int32_t>(), n,
                          rows, padding_idx, keys, tokens);
  TE_RETURN_IF_ERROR(cuda::LaunchStatus("embedding_backward: keys"));
  // As many bits as `rows` has: each eight are a pass over the keys.
  const int bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(rows)));
  const auto sort = [&](void* workspace, size_t* bytes) {
    return cuda::ToStatus(
        cub::DeviceRadixSort::SortPairs(workspace, *bytes, keys, sorted_keys, tokens, sorted.tokens,
                                        static_cast<int>(n), 0, bits, cuda::StreamOf(exec)),
        "sort of token ids");
  };
  size_t bytes = 0;
  TE_RETURN_IF_ERROR(sort(nullptr, &bytes));
  TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(bytes));
  TE_RETURN_IF_ERROR(sort(workspace, &bytes));
  cuda::LaunchOverlapping(exec, BeginsKernel, dim3(BlocksOf(rows + 1)), dim3(256), {}, sorted_keys,
                          n, rows, sorted.begins);
  TE_RETURN_IF_ERROR(cuda::LaunchStatus("embedding_backward: begins"));
  return sorted;
}

template <int N, typename T>
Status Backward(const Exec& exec, const EmbeddingBackwardArgs& args, const Sorted& sorted) {
  const int64_t rows = args.dtable.dim(0), hidden = args.dtable.dim(1);
  const auto blocks = [](int64_t n, int64_t each) {
    return static_cast<unsigned int>((n + each - 1) / each);
  };
  const dim3 long_grid(blocks(args.ids.elements(), kLongRun), blocks(hidden, kLongColumns));
  cuda::LaunchOverlapping(
      exec, args.accumulate ? SumLongRowsKernel<N, T, true> : SumLongRowsKernel<N, T, false>,
      long_grid, dim3(kLongThreads), {}, sorted.ids, sorted.begins, sorted.tokens,
      args.dout.as<T>(), rows, hidden, args.dtable.as<T>());
  TE_RETURN_IF_ERROR(cuda::LaunchStatus("embedding_backward: long rows"));
  const dim3 grid(static_cast<unsigned int>(args.accumulate ? args.ids.elements() : rows),
                  blocks(hidden, int64_t{N} * kThreads * kSumVectors));
  cuda::LaunchOverlapping(exec,
                          args.accumulate ? SumRowsKernel<N, T, true> : SumRowsKernel<N, T, false>,
                          grid, dim3(kThreads), {}, sorted.ids, sorted.begins, sorted.tokens,
                          args.dout.as<T>(), rows, hidden, args.dtable.as<T>());
  return cuda::LaunchStatus("embedding_backward");
}

template <typename T>
Status Backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  TE_ASSIGN_OR_RETURN(const Sorted sorted,
                      SortByIds(exec, args.ids, args.dtable.dim(0), args.padding_idx));
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
  if (args.ids.elements() == 0) {
    if (args.accumulate) return OkStatus();
    return cuda::ToStatus(
        cudaMemsetAsync(args.dtable.data(), 0, args.dtable.bytes(), cuda::StreamOf(exec)),
        "embedding_backward: zero");
  }
  const ArenaScope scope(exec.scratch);
  return args.dtable.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                                : Backward<bfloat16>(exec, args);
}

}  // namespace te
