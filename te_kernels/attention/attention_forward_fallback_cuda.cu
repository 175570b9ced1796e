// Forward pass of attention with an online softmax (Dao et al. 2022, algorithm 1): a block owns 64
// queries of one head and up to 64 kParts columns of v, and walks over the tiles of 64 keys that
// one of its queries sees. m is the largest score so far and l the sum of exp(score - m); both and
// the sums of p v are rescaled when m grows. Wider v: more blocks, each with its own softmax.
#include "te_kernels/attention/attention_fallback.cuh"
#include "te_kernels/attention/attention_fallback_cuda.h"

namespace te {
namespace {

using namespace cuda;  // this file is one of its kernels

template <typename T>
struct ForwardParams {
  AttentionProblem problem;
  DeviceTensor<const T> q, k, v;
  DeviceTensor<T> out;
  float* lse;  // or null
  int64_t lse_strides[3];
  int64_t tiles;  // of queries
  int64_t parts;  // blocks along v's columns
};

// The scores' fragment becomes exp(score - m) of the visible pairs; m, l and the sums follow.
template <int kParts>
__device__ void OnlineSoftmax(const AttentionProblem& p, int64_t batch, int64_t head, int64_t query,
                              int64_t key, Fragment& scores, float (&m)[kMicro], float (&l)[kMicro],
                              Fragment (&sums)[kParts]) {
  const unsigned int visible = p.VisiblePairs(batch, head, query, key);
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    float largest = kMasked;
#pragma unroll
    for (int c = 0; c < kMicro; ++c) {
      scores[r][c] = visible >> (kMicro * r + c) & 1 ? scores[r][c] * p.scale : kMasked;
      largest = fmaxf(largest, scores[r][c]);
    }
    largest = fmaxf(m[r], HalfWarpMax(largest));
    const float base = largest == kMasked ? 0.0f : largest;  // nothing seen yet: exp gives zeros
    const float correction = expf(m[r] - base);
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kMicro; ++c) {
      scores[r][c] = expf(scores[r][c] - base);
      sum += scores[r][c];
    }
    l[r] = l[r] * correction + HalfWarpSum(sum);
    m[r] = largest;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) sums[part][r][c] *= correction;
    }
  }
}

template <typename T, int kParts>
__global__ void __launch_bounds__(kAttentionThreads, kParts <= 2 ? 2 : 1)
    AttentionForwardFallbackKernel(const ForwardParams<T> params) {
  __shared__ Staging staging;
  __shared__ alignas(16) SharedRow weights[kTile];
  const AttentionProblem& p = params.problem;
  int64_t block = blockIdx.x;
  const int64_t column0 = block % params.parts * (kParts * kTile);
  block /= params.parts;
  // Causal masks: the last tiles have the most keys and start first.
  const int64_t query0 = (params.tiles - 1 - block % params.tiles) * kTile;
  block /= params.tiles;
  const int64_t head = block % p.heads, batch = block / p.heads, group = p.GroupOf(head);

  const Rows<T> q = params.q.Tile(batch, query0, head, p.queries);
  const int64_t key_begin = p.window.Visible(query0, p.keys).begin;
  const int64_t key_end = p.window.Visible(query0 + q.count - 1, p.keys).end;
  const RandomState random = p.Random();
  float m[kMicro], l[kMicro];
  Fragment sums[kParts];
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    m[r] = kMasked;
    l[r] = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) sums[part][r][c] = 0;
    }
  }

  const int64_t query = query0 + FirstRow();
  for (int64_t key0 = key_begin; key0 < key_end; key0 += kTile) {
    const int64_t key = key0 + FirstColumn();
    Fragment scores;
    MultiplyRows(q, params.k.Tile(batch, key0, group, p.keys), p.head_dim, staging, scores);
    OnlineSoftmax(p, batch, head, query, key, scores, m, l, sums);
    if (p.dropout > 0) {
      const unsigned int kept = p.KeptPairs(random, batch, head, query, key);
#pragma unroll
      for (int r = 0; r < kMicro; ++r) {
#pragma unroll
        for (int c = 0; c < kMicro; ++c)
          scores[r][c] = kept >> (kMicro * r + c) & 1 ? scores[r][c] : 0.0f;
      }
    }
    StoreWeights<T>(scores, weights);
    Rows<T> v = params.v.Tile(batch, key0, group, p.keys);
    v.x += column0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int64_t width = p.value_dim - column0 - part * kTile;
      if (width > 0) MultiplyWeights(weights, v, width, staging, sums[part]);
      v.x += kTile;
    }
  }

#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    if (query + r >= p.queries) break;
    if (params.lse != nullptr && column0 == 0 && FirstColumn() == 0) {
      params.lse[batch * params.lse_strides[0] + head * params.lse_strides[1] +
                 (query + r) * params.lse_strides[2]] = m[r] + logf(l[r]);
    }
    const float inverse = l[r] == 0 ? 0.0f : 1.0f / (l[r] * (1.0f - p.dropout));
    T* out = params.out.At(batch, query + r, head);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) {
        const int64_t column = column0 + part * kTile + FirstColumn() + c;
        if (column < p.value_dim) out[column] = FromFloat<T>(sums[part][r][c] * inverse);
      }
    }
  }
}

template <typename T, int kParts>
Status Launch(const Exec& exec, const AttentionForwardArgs& args) {
  ForwardParams<T> params = {.problem = ProblemOf(args),
                             .q = DeviceTensor<const T>::Of(args.q),
                             .k = DeviceTensor<const T>::Of(args.k),
                             .v = DeviceTensor<const T>::Of(args.v),
                             .out = DeviceTensor<T>::Of(args.out),
                             .lse = nullptr,
                             .lse_strides = {},
                             .tiles = CeilDiv(args.q.dim(1), kTile),
                             .parts = std::max<int64_t>(1, CeilDiv(args.v.dim(3), kParts * kTile))};
  if (args.lse.defined()) {
    params.lse = args.lse.as<float>();
    for (int axis = 0; axis < 3; ++axis) params.lse_strides[axis] = args.lse.stride(axis);
  }
  TE_ASSIGN_OR_RETURN(
      const unsigned int grid,
      GridOf("attention_forward", args.q.dim(0) * args.q.dim(2) * params.tiles * params.parts));
  if (grid == 0) return OkStatus();
  AttentionForwardFallbackKernel<T, kParts><<<grid, kAttentionThreads, 0, StreamOf(exec)>>>(params);
  return LaunchStatus("attention_forward_fallback");
}

template <typename T>
Status Run(const Exec& exec, const AttentionForwardArgs& args) {
  if (args.v.dim(3) <= kTile) return Launch<T, 1>(exec, args);
  if (args.v.dim(3) <= 2 * kTile) return Launch<T, 2>(exec, args);
  return Launch<T, 4>(exec, args);
}

}  // namespace

Status AttentionForwardFallbackCuda(const Exec& exec, const AttentionForwardArgs& args) {
  const size_t bytes = args.q.bytes() + args.k.bytes() + args.v.bytes() + args.out.bytes() +
                       (args.lse.defined() ? args.lse.bytes() : 0);
  Record(exec, "attention_forward", "attention_fallback_cuda", args.q.dtype(),
         static_cast<int64_t>(bytes));
  return args.q.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
