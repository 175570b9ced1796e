// A row of scores stays in registers between its passes; of a causal row only the visible part is
// read. Bytes: forward 2, backward 3 times B n Sq Skv sizeof(T), less what a mask hides.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/rows.cuh"
#include "te_kernels/softmax/softmax.h"

namespace te {
namespace {

constexpr float kMasked = -INFINITY;

// An AttentionMask for device code; the same ranges and addresses as MaskedRow's.
struct DeviceMask {
  int64_t diagonal;                   // of query 0
  int64_t window_left, window_right;  // -1: infinite
  const uint8_t* masked;              // null: no holes
  int64_t batch_stride, head_stride, query_stride, key_stride;
};

DeviceMask ToDevice(const AttentionMask& mask, int64_t num_queries, int64_t num_keys) {
  DeviceMask out{};
  const AttentionMaskType type = mask.type;
  const bool bottom_right = type == AttentionMaskType::kCausalBottomRight ||
                            type == AttentionMaskType::kPaddingCausalBottomRight;
  const bool causal = bottom_right || type == AttentionMaskType::kCausal ||
                      type == AttentionMaskType::kPaddingCausal;
  out.diagonal = bottom_right ? num_keys - num_queries : 0;
  out.window_left = mask.window_left;
  out.window_right = causal ? 0 : mask.window_right;
  if (UsesPadding(type)) {
    out.masked = mask.padding.as<uint8_t>();
    out.batch_stride = mask.padding.stride(0);
    out.key_stride = mask.padding.stride(1);
  } else if (type == AttentionMaskType::kArbitrary) {
    const ConstTensorView& m = mask.arbitrary;
    out.masked = m.as<uint8_t>();
    out.batch_stride = m.dim(0) == 1 ? 0 : m.stride(0);
    out.head_stride = m.dim(1) == 1 ? 0 : m.stride(1);
    out.query_stride = m.stride(2);
    out.key_stride = m.stride(3);
  }
  return out;
}

struct VisibleRow {
  int begin, end;         // outside, every key is masked
  const uint8_t* masked;  // of key 0; null: no holes
};

template <typename Index>
__device__ VisibleRow VisibleOf(const DeviceMask& mask, Index row, Index heads, Index queries,
                                int keys) {
  const Index query = row % queries, head = row / queries % heads, batch = row / queries / heads;
  const int64_t diagonal = static_cast<int64_t>(query) + mask.diagonal;
  const int64_t begin = mask.window_left < 0 ? 0 : max(int64_t{0}, diagonal - mask.window_left);
  const int64_t end = mask.window_right < 0
                          ? keys
                          : min(max(diagonal + mask.window_right + 1, int64_t{0}), int64_t{keys});
  VisibleRow out;
  out.begin = static_cast<int>(min(begin, end));
  out.end = static_cast<int>(end);
  out.masked = mask.masked;
  if (out.masked != nullptr) {
    out.masked += batch * mask.batch_stride + head * mask.head_stride + query * mask.query_stride;
  }
  return out;
}

template <typename Tile>
__device__ float RowMax(float x, float (&shared)[Tile::kWarps]) {
  if constexpr (Tile::kWarps == 1) {
    return cuda::WarpMax(x);
  } else {
    return cuda::BlockMax<Tile::kThreads>(x, shared);
  }
}

// ---- Kernels ----

template <int N, typename Tile, typename T>
__global__ void __launch_bounds__(Tile::kBlock, std::max(1, 512 / Tile::kBlock))
    ForwardKernel(int64_t rows, int64_t heads, int64_t queries, int keys, const T* x,
                  DeviceMask mask, float scale, T* y) {
  constexpr int kHeld = std::max(1, Tile::kVectors);
  __shared__ float shared_max[Tile::kWarps], shared_sum[1][Tile::kWarps];
  const int lane = threadIdx.x % Tile::kThreads;
  const int64_t row = int64_t{blockIdx.x} * Tile::kRows + threadIdx.x / Tile::kThreads;
  if (row >= rows) return;  // a whole warp: with more than one row, no barrier follows
  const VisibleRow visible = rows <= INT32_MAX
                                 ? VisibleOf<uint32_t>(mask, row, heads, queries, keys)
                                 : VisibleOf<uint64_t>(mask, row, heads, queries, keys);
  const int vectors = keys / N;
  cuda::Row<T, N, Tile> in;
  in.Read(x + row * keys, lane, (visible.end + N - 1) / N);

  const auto scores = [&](int j, float(&out)[N]) {
    in.Get(j, out);
    const int first = (lane + j * Tile::kThreads) * N;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const int key = first + e;
      bool hidden = key < visible.begin || key >= visible.end;
      if (!hidden && visible.masked != nullptr)
        hidden = __ldg(visible.masked + key * mask.key_stride) != 0;
      if (hidden) out[e] = kMasked;
    }
  };
  float held[kHeld][N];
  float largest = kMasked;
#pragma unroll
  for (int j = 0; j < in.Count(vectors); ++j) {
    float(&values)[N] = held[Tile::kVectors > 0 ? j : 0];
    scores(j, values);
#pragma unroll
    for (int e = 0; e < N; ++e) largest = fmaxf(largest, values[e]);
  }
  largest = RowMax<Tile>(largest, shared_max);
  // Nothing visible: exp(-infinity - 0) = 0 everywhere.
  const float offset = largest == kMasked ? 0 : largest * scale;
  float sum = 0;
#pragma unroll
  for (int j = 0; j < in.Count(vectors); ++j) {
    float(&values)[N] = held[Tile::kVectors > 0 ? j : 0];
    if constexpr (Tile::kVectors == 0) scores(j, values);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      values[e] = expf(values[e] * scale - offset);
      sum += values[e];
    }
  }
  sum = cuda::RowSum<Tile>(sum, shared_sum);
  const float inverse = largest == kMasked ? 0 : 1.0f / sum;
  T* out = y + row * keys;
#pragma unroll
  for (int j = 0; j < in.Count(vectors); ++j) {
    const int i = lane + j * Tile::kThreads;
    float(&values)[N] = held[Tile::kVectors > 0 ? j : 0];
    if constexpr (Tile::kVectors == 0) {
      scores(j, values);
#pragma unroll
      for (int e = 0; e < N; ++e) values[e] = expf(values[e] * scale - offset);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) values[e] *= inverse;
    if (i < vectors) cuda::Store<N>(out + int64_t{i} * N, values);
  }
}

template <int N, typename Tile, typename T>
__global__ void __launch_bounds__(Tile::kBlock, std::max(1, 512 / Tile::kBlock))
    BackwardKernel(int64_t rows, int keys, const T* y, const T* dy, float scale, T* dx) {
  __shared__ float shared[1][Tile::kWarps];
  const int lane = threadIdx.x % Tile::kThreads;
  const int64_t row = int64_t{blockIdx.x} * Tile::kRows + threadIdx.x / Tile::kThreads;
  if (row >= rows) return;
  const int vectors = keys / N;
  cuda::Row<T, N, Tile> ys, dys;
  ys.Read(y + row * keys, lane, vectors);
  dys.Read(dy + row * keys, lane, vectors);
  float dot = 0;
#pragma unroll
  for (int j = 0; j < ys.Count(vectors); ++j) {
    float a[N], b[N];
    ys.Get(j, a);
    dys.Get(j, b);
#pragma unroll
    for (int e = 0; e < N; ++e) dot += a[e] * b[e];
  }
  dot = cuda::RowSum<Tile>(dot, shared);
  T* out = dx + row * keys;
#pragma unroll
  for (int j = 0; j < ys.Count(vectors); ++j) {
    const int i = lane + j * Tile::kThreads;
    float a[N], b[N];
    ys.Get(j, a);
    dys.Get(j, b);
#pragma unroll
    for (int e = 0; e < N; ++e) a[e] *= (b[e] - dot) * scale;
    if (i < vectors) cuda::Store<N>(out + int64_t{i} * N, a);
  }
}

// ---- Launchers ----

template <typename Tile>
unsigned int BlocksFor(int64_t rows) {
  return static_cast<unsigned int>((rows + Tile::kRows - 1) / Tile::kRows);
}

template <typename T>
Status Forward(const Exec& exec, const SoftmaxForwardArgs& args) {
  const int64_t heads = args.x.dim(1), queries = args.x.dim(2), keys = args.x.dim(3);
  const int64_t rows = args.x.dim(0) * heads * queries;
  const T* x = args.x.as<T>();
  T* y = args.y.as<T>();
  const DeviceMask mask = ToDevice(args.mask, queries, keys);
  const auto launch = [&]<int N>(std::integral_constant<int, N>) {
    return cuda::WithRowTile<N>(keys / N, [&](auto tile) {
      using Tile = decltype(tile);
      ForwardKernel<N, Tile><<<BlocksFor<Tile>(rows), Tile::kBlock, 0, cuda::StreamOf(exec)>>>(
          rows, heads, queries, static_cast<int>(keys), x, mask, args.scale, y);
      return cuda::LaunchStatus("softmax_forward");
    });
  };
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors = cuda::Aligned<kN>(x, keys) && cuda::Aligned<kN>(y, keys);
  return vectors ? launch(std::integral_constant<int, kN>())
                 : launch(std::integral_constant<int, 1>());
}

template <typename T>
Status Backward(const Exec& exec, const SoftmaxBackwardArgs& args) {
  const int64_t keys = args.y.dim(3);
  const int64_t rows = args.y.dim(0) * args.y.dim(1) * args.y.dim(2);
  const T* y = args.y.as<T>();
  const T* dy = args.dy.as<T>();
  T* dx = args.dx.as<T>();
  const auto launch = [&]<int N>(std::integral_constant<int, N>) {
    return cuda::WithRowTile<N>(keys / N, [&](auto tile) {
      using Tile = decltype(tile);
      BackwardKernel<N, Tile><<<BlocksFor<Tile>(rows), Tile::kBlock, 0, cuda::StreamOf(exec)>>>(
          rows, static_cast<int>(keys), y, dy, args.scale, dx);
      return cuda::LaunchStatus("softmax_backward");
    });
  };
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors =
      cuda::Aligned<kN>(y, keys) && cuda::Aligned<kN>(dy, keys) && cuda::Aligned<kN>(dx, keys);
  return vectors ? launch(std::integral_constant<int, kN>())
                 : launch(std::integral_constant<int, 1>());
}

}  // namespace

Status SoftmaxForwardCuda(const Exec& exec, const SoftmaxForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSoftmaxForward(args));
  if (args.x.elements() == 0) return OkStatus();
  Record(exec, "softmax_forward", "softmax_forward_cuda", args.x.dtype(),
         2 * static_cast<int64_t>(args.x.bytes()));
  return args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, args)
                                           : Forward<bfloat16>(exec, args);
}

Status SoftmaxBackwardCuda(const Exec& exec, const SoftmaxBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSoftmaxBackward(args));
  if (args.y.elements() == 0) return OkStatus();
  Record(exec, "softmax_backward", "softmax_backward_cuda", args.y.dtype(),
         3 * static_cast<int64_t>(args.y.bytes()));
  return args.y.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                           : Backward<bfloat16>(exec, args);
}

}  // namespace te
