// What the fallback kernels of attention share: products of 64 x 64 tiles in FP32, which pairs of
// query and key count, and the problem as a kernel's parameter.
//
// A block of 256 threads owns 64 rows; thread (y, x) of 16 x 16 holds rows 4 y + 0..3 and columns 4
// x + 0..3 of a tile in registers, so that the sixteen lanes of half a warp hold four whole rows.
#pragma once

#include <array>
#include <limits>

#include "te_kernels/attention/attention.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cuda {

inline constexpr int kTile = 64;
inline constexpr int kAttentionThreads = 256;
inline constexpr int kStep = 32;          // of the reduction between two barriers
inline constexpr int kPitch = kTile + 4;  // a row of shared memory; keeps 16-byte alignment
inline constexpr int kMicro = 4;          // rows and columns of a thread's piece of a tile
inline constexpr float kMasked = -std::numeric_limits<float>::infinity();

using Fragment = float[kMicro][kMicro];
using SharedRow = float[kPitch];

// Operands of one step of a product, both with the reduction as the first index.
struct Staging {
  alignas(16) SharedRow a[kStep];
  alignas(16) SharedRow b[kStep];
};

__device__ inline int FirstRow() { return kMicro * (static_cast<int>(threadIdx.x) / 16); }
__device__ inline int FirstColumn() { return kMicro * (static_cast<int>(threadIdx.x) % 16); }

// to[c][r] = x[r][c], zeros outside rows x width. A warp moves 4 x 8 patches: their addresses in
// shared memory lie in 32 different banks.
template <typename T>
__device__ inline void StageTransposed(const T* x, int64_t row_stride, int rows, int64_t width,
                                       SharedRow* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row0 = static_cast<int>(threadIdx.x) / kWarp * 8 + lane / 8;
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int r = row0 + i / 4 * 4, c = i % 4 * 8 + lane % 8;
    values[i] = r < rows && c < width ? ToFloat(x[r * row_stride + c]) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i % 4 * 8 + lane % 8][row0 + i / 4 * 4] = values[i];
}

// to[r][c] = x[r][c], zeros outside rows x width.
template <typename T>
__device__ inline void StageRows(const T* x, int64_t row_stride, int rows, int64_t width,
                                 SharedRow* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row0 = static_cast<int>(threadIdx.x) / kWarp * 4;
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int r = row0 + i / 2, c = i % 2 * kWarp + lane;
    values[i] = r < rows && c < width ? ToFloat(x[r * row_stride + c]) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) to[row0 + i / 2][i % 2 * kWarp + lane] = values[i];
}

// sum += a^T b over one step.
__device__ inline void MultiplyStep(const SharedRow* a, const SharedRow* b, Fragment& sum) {
  const int row = FirstRow(), column = FirstColumn();
#pragma unroll 4
  for (int k = 0; k < kStep; ++k) {
    float x[kMicro], y[kMicro];
    Load<kMicro>(&a[k][row], x);
    Load<kMicro>(&b[k][column], y);
#pragma unroll
    for (int r = 0; r < kMicro; ++r) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) sum[r][c] = fmaf(x[r], y[c], sum[r][c]);
    }
  }
}

template <typename T>
struct Rows {  // of one head, from some position on
  const T* x;
  int64_t stride;
  int count;  // at most kTile
};

// product = a b^T, over `width` columns of both.
template <typename T>
__device__ inline void MultiplyRows(const Rows<T>& a, const Rows<T>& b, int64_t width,
                                    Staging& staging, Fragment& product) {
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
#pragma unroll
    for (int c = 0; c < kMicro; ++c) product[r][c] = 0;
  }
  for (int64_t column = 0; column < width; column += kStep) {
    __syncthreads();
    StageTransposed(a.x + column, a.stride, a.count, width - column, staging.a);
    StageTransposed(b.x + column, b.stride, b.count, width - column, staging.b);
    __syncthreads();
    MultiplyStep(staging.a, staging.b, product);
  }
}

// sum += weights^T x for the columns [0, min(width, kTile)) of x.
template <typename T>
__device__ inline void MultiplyWeights(const SharedRow* weights, const Rows<T>& x, int64_t width,
                                       Staging& staging, Fragment& sum) {
  for (int row = 0; row < x.count; row += kStep) {
    __syncthreads();
    StageRows(x.x + row * x.stride, x.stride, x.count - row, width, staging.b);
    __syncthreads();
    MultiplyStep(weights + row, staging.b, sum);
  }
}

// weights[column][row] = the fragments, rounded to T. Waits for the readers of the last weights;
// the next product's first barrier makes these visible.
template <typename T>
__device__ inline void StoreWeights(const Fragment& fragment, SharedRow* weights) {
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kMicro; ++c) {
    float rounded[kMicro];
#pragma unroll
    for (int r = 0; r < kMicro; ++r) rounded[r] = ToFloat(FromFloat<T>(fragment[r][c]));
    Store(&weights[FirstColumn() + c][FirstRow()], rounded);
  }
}

// Sums and maxima over the sixteen threads that share rows; in each of them.
__device__ inline float HalfWarpSum(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ inline float HalfWarpMax(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// [B, S, heads, width] with inner stride 1.
template <typename T>
struct DeviceTensor {
  T* data;
  int64_t batch_stride, position_stride, head_stride;

  template <typename View>
  static DeviceTensor Of(const View& x) {
    return {x.template as<std::remove_const_t<T>>(), x.stride(0), x.stride(1), x.stride(2)};
  }
  __device__ T* At(int64_t batch, int64_t position, int64_t head) const {
    return data + batch * batch_stride + position * position_stride + head * head_stride;
  }
  __device__ Rows<std::remove_const_t<T>> Tile(int64_t batch, int64_t position, int64_t head,
                                               int64_t positions) const {
    const int64_t left = positions - position;
    return {At(batch, position, head), position_stride,
            static_cast<int>(left < kTile ? left : kTile)};
  }
};

// What the kernels need beside their tensors.
struct AttentionProblem {
  int64_t heads, groups, queries, keys, head_dim, value_dim;
  float scale;
  float dropout;
  RandomState random;
  KeyWindow window;
  const uint8_t* masked;    // of padding and arbitrary masks, or null; nonzero = masked
  int64_t mask_strides[4];  // batch, head, query, key

  __device__ int64_t GroupOf(int64_t head) const { return head / (heads / groups); }

  // Bit c: query `query` sees key `key` + c.
  __device__ unsigned int VisibleBits(int64_t batch, int64_t head, int64_t query,
                                      int64_t key) const {
    if (query >= queries) return 0;
    const KeyRange range = window.Visible(query, keys);
    const uint8_t* row = masked == nullptr ? nullptr
                                           : masked + batch * mask_strides[0] +
                                                 head * mask_strides[1] + query * mask_strides[2];
    unsigned int bits = 0;
#pragma unroll
    for (int c = 0; c < kMicro; ++c) {
      const int64_t j = key + c;
      const bool visible =
          j >= range.begin && j < range.end && (row == nullptr || row[j * mask_strides[3]] == 0);
      bits |= visible ? 1u << c : 0u;
    }
    return bits;
  }

  // Bit 4 r + c: of query `query` + r and key `key` + c. One query at a time, as sixteen pairs at
  // once take more registers than two blocks a multiprocessor have.
  __device__ unsigned int VisiblePairs(int64_t batch, int64_t head, int64_t query,
                                       int64_t key) const {
    unsigned int bits = 0;
#pragma unroll 1
    for (int r = 0; r < kMicro; ++r)
      bits |= VisibleBits(batch, head, query + r, key) << (kMicro * r);
    return bits;
  }
  __device__ unsigned int KeptPairs(const RandomState& state, int64_t batch, int64_t head,
                                    int64_t query, int64_t key) const {
    if (dropout <= 0) return 0xffff;
    unsigned int bits = 0;
#pragma unroll 1
    for (int r = 0; r < kMicro; ++r)
      bits |= KeptBits(state, batch, head, query + r, key) << (kMicro * r);
    return bits;
  }

  // Bit c: dropout keeps the probability of key `key` + c. `state`: resolved.
  __device__ unsigned int KeptBits(const RandomState& state, int64_t batch, int64_t head,
                                   int64_t query, int64_t key) const {
    const auto first =
        static_cast<uint64_t>(((batch * heads + head) * queries + query) * keys + key);
    const unsigned int lane = first % 4;
    const std::array<uint32_t, 4> here = Philox::Block(state, first / 4);
    std::array<uint32_t, 4> next = here;
    if (lane != 0) next = Philox::Block(state, first / 4 + 1);
    unsigned int kept_here = 0, kept_next = 0;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      kept_here |= Philox::ToUniform(here[c]) >= dropout ? 1u << c : 0u;
      kept_next |= Philox::ToUniform(next[c]) >= dropout ? 1u << c : 0u;
    }
    return ((kept_here | kept_next << 4) >> lane) & 0xf;
  }

  __device__ RandomState Random() const { return dropout > 0 ? random.Resolved() : RandomState(); }
};

template <typename Args>
AttentionProblem ProblemOf(const Args& args) {
  const int64_t queries = args.q.dim(1), keys = args.k.dim(1);
  AttentionProblem out = {.heads = args.q.dim(2),
                          .groups = args.k.dim(2),
                          .queries = queries,
                          .keys = keys,
                          .head_dim = args.q.dim(3),
                          .value_dim = args.v.dim(3),
                          .scale = args.softmax_scale,
                          .dropout = args.dropout,
                          .random = args.random,
                          .window = WindowOf(args.mask, queries, keys),
                          .masked = nullptr,
                          .mask_strides = {}};
  if (UsesPadding(args.mask.type)) {
    const ConstTensorView& m = args.mask.padding;
    out.masked = m.as<uint8_t>();
    out.mask_strides[0] = m.stride(0);
    out.mask_strides[3] = m.stride(1);
  } else if (args.mask.type == AttentionMaskType::kArbitrary) {
    const ConstTensorView& m = args.mask.arbitrary;
    out.masked = m.as<uint8_t>();
    for (int axis = 0; axis < 4; ++axis)
      out.mask_strides[axis] = axis < 2 && m.dim(axis) == 1 ? 0 : m.stride(axis);
  }
  return out;
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A grid of one dimension, as only that one is large.
inline StatusOr<unsigned int> GridOf(const char* operation, int64_t blocks) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (blocks > kMax) {
    return InvalidArgument("{}: {} blocks of 64 rows; expected at most {}", operation, blocks,
                           kMax);
  }
  return static_cast<unsigned int>(blocks);
}

}  // namespace te::cuda
