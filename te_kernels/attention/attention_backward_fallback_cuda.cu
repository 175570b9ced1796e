// Backward pass of attention (Dao et al. 2022, appendix B.2) in three kernels. With p = softmax(s),
// out = drop(p) v and D_i = dout_i . out_i:
//   dv = drop(p)^T dout;  ds = p * (drop'(dout v^T) - D) * scale;  dq = ds k;  dk = ds^T q
// dq is one block's sum over the keys, dk and dv one block's sum over the group's heads and their
// queries, in order: each gradient is written once, by one block, without atomics. p comes back
// from the scores and lse in both. Wider heads: more blocks, each with its own p.
#include "te_kernels/attention/attention_fallback.cuh"
#include "te_kernels/attention/attention_fallback_cuda.h"

namespace te {
namespace {

using namespace cuda;  // this file is one of its kernels

template <typename T>
struct BackwardParams {
  AttentionProblem problem;
  DeviceTensor<const T> q, k, v, out, dout;
  DeviceTensor<T> dq, dk, dv;
  const float* lse;
  int64_t lse_strides[3];
  float* dots;    // D, [B, n, Sq]
  int64_t tiles;  // of queries (dq) or keys (dk, dv)
  int64_t parts;  // blocks along the head dimension

  __device__ int64_t Row(int64_t batch, int64_t head, int64_t query) const {
    return (batch * problem.heads + head) * problem.queries + query;
  }
  __device__ float Lse(int64_t batch, int64_t head, int64_t query) const {
    return lse[batch * lse_strides[0] + head * lse_strides[1] + query * lse_strides[2]];
  }
};

// One warp a row of dots.
template <typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionDotsKernel(const BackwardParams<T> params, int64_t rows) {
  const AttentionProblem& p = params.problem;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (kAttentionThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int64_t query = row % p.queries, head = row / p.queries % p.heads;
  const int64_t batch = row / p.queries / p.heads;
  const T* out = params.out.At(batch, query, head);
  const T* dout = params.dout.At(batch, query, head);
  float sum = 0;
  for (int64_t c = threadIdx.x % kWarp; c < p.value_dim; c += kWarp)
    sum += ToFloat(dout[c]) * ToFloat(out[c]);
  sum = WarpSum(sum);
  if (threadIdx.x % kWarp == 0) params.dots[row] = sum;
}

struct Pair {
  float weight;  // drop(p)
  float dscore;  // ds
};

// Of one query and key. score: q . k; dp: dout . v.
__device__ inline Pair Gradients(const AttentionProblem& p, float score, float dp, float lse,
                                 float dot, bool visible, bool kept) {
  if (!visible || lse == kMasked) return {0, 0};
  const float probability = expf(score * p.scale - lse);
  const float drop = kept ? 1.0f / (1.0f - p.dropout) : 0.0f;
  return {probability * drop, probability * (dp * drop - dot) * p.scale};
}

template <typename T, int kParts>
__global__ void __launch_bounds__(kAttentionThreads, kParts == 1 ? 2 : 1)
    AttentionDqFallbackKernel(const BackwardParams<T> params) {
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
  const Rows<T> dout = params.dout.Tile(batch, query0, head, p.queries);
  const int64_t key_begin = p.window.Visible(query0, p.keys).begin;
  const int64_t key_end = p.window.Visible(query0 + q.count - 1, p.keys).end;
  const RandomState random = p.Random();
  const int64_t query = query0 + FirstRow();
  float lse[kMicro], dot[kMicro];
  Fragment sums[kParts];
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    const bool inside = query + r < p.queries;
    lse[r] = inside ? params.Lse(batch, head, query + r) : kMasked;
    dot[r] = inside ? params.dots[params.Row(batch, head, query + r)] : 0.0f;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) sums[part][r][c] = 0;
    }
  }

  for (int64_t key0 = key_begin; key0 < key_end; key0 += kTile) {
    const int64_t key = key0 + FirstColumn();
    Rows<T> k = params.k.Tile(batch, key0, group, p.keys);
    const Rows<T> v = params.v.Tile(batch, key0, group, p.keys);
    Fragment scores, dp;
    MultiplyRows(q, k, p.head_dim, staging, scores);
    MultiplyRows(dout, v, p.value_dim, staging, dp);
    const unsigned int visible = p.VisiblePairs(batch, head, query, key);
    const unsigned int kept = p.KeptPairs(random, batch, head, query, key);
#pragma unroll
    for (int r = 0; r < kMicro; ++r) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) {
        const unsigned int pair = kMicro * r + c;
        scores[r][c] = Gradients(p, scores[r][c], dp[r][c], lse[r], dot[r], visible >> pair & 1,
                                 kept >> pair & 1)
                           .dscore;
      }
    }
    StoreWeights<T>(scores, weights);
    k.x += column0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int64_t width = p.head_dim - column0 - part * kTile;
      if (width > 0) MultiplyWeights(weights, k, width, staging, sums[part]);
      k.x += kTile;
    }
  }

#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    if (query + r >= p.queries) break;
    T* dq = params.dq.At(batch, query + r, head);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) {
        const int64_t column = column0 + part * kTile + FirstColumn() + c;
        if (column < p.head_dim) dq[column] = FromFloat<T>(sums[part][r][c]);
      }
    }
  }
}

// The sums of dk or dv: rows of the tile's keys.
template <typename T, int kParts>
__device__ void StoreSums(const DeviceTensor<T>& to, int64_t batch, int64_t key0, int64_t group,
                          int64_t keys, int64_t column0, int64_t width,
                          const Fragment (&sums)[kParts]) {
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    const int64_t key = key0 + FirstRow() + r;
    if (key >= keys) break;
    T* row = to.At(batch, key, group);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) {
        const int64_t column = column0 + part * kTile + FirstColumn() + c;
        if (column < width) row[column] = FromFloat<T>(sums[part][r][c]);
      }
    }
  }
}

template <typename T, int kParts>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionDkDvFallbackKernel(const BackwardParams<T> params) {
  __shared__ Staging staging;
  __shared__ alignas(16) SharedRow weights[kTile];
  const AttentionProblem& p = params.problem;
  int64_t block = blockIdx.x;
  const int64_t column0 = block % params.parts * (kParts * kTile);
  block /= params.parts;
  const int64_t key0 = block % params.tiles * kTile;
  block /= params.tiles;
  const int64_t group = block % p.groups, batch = block / p.groups;

  const Rows<T> k = params.k.Tile(batch, key0, group, p.keys);
  const Rows<T> v = params.v.Tile(batch, key0, group, p.keys);
  const RandomState random = p.Random();
  const int64_t key = key0 + FirstRow();
  Fragment dk[kParts], dv[kParts];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int r = 0; r < kMicro; ++r) {
#pragma unroll
      for (int c = 0; c < kMicro; ++c) dk[part][r][c] = dv[part][r][c] = 0;
    }
  }

  const int64_t heads_per_group = p.heads / p.groups;
  for (int64_t head = group * heads_per_group; head < (group + 1) * heads_per_group; ++head) {
    for (int64_t query0 = 0; query0 < p.queries; query0 += kTile) {
      Rows<T> q = params.q.Tile(batch, query0, head, p.queries);
      Rows<T> dout = params.dout.Tile(batch, query0, head, p.queries);
      if (p.window.Visible(query0, p.keys).begin >= key0 + k.count ||
          p.window.Visible(query0 + q.count - 1, p.keys).end <= key0) {
        continue;
      }
      // Rows are keys here and columns queries.
      Fragment scores, dp;
      MultiplyRows(k, q, p.head_dim, staging, scores);
      MultiplyRows(v, dout, p.value_dim, staging, dp);
      const int64_t query = query0 + FirstColumn();
      const unsigned int visible = p.VisiblePairs(batch, head, query, key);
      const unsigned int kept = p.KeptPairs(random, batch, head, query, key);
#pragma unroll
      for (int c = 0; c < kMicro; ++c) {
        const bool inside = query + c < p.queries;
        const float lse = inside ? params.Lse(batch, head, query + c) : kMasked;
        const float dot = inside ? params.dots[params.Row(batch, head, query + c)] : 0.0f;
#pragma unroll
        for (int r = 0; r < kMicro; ++r) {
          const unsigned int pair = kMicro * c + r;
          const Pair gradients =
              Gradients(p, scores[r][c], dp[r][c], lse, dot, visible >> pair & 1, kept >> pair & 1);
          scores[r][c] = gradients.weight;
          dp[r][c] = gradients.dscore;
        }
      }
      q.x += column0;
      dout.x += column0;
      StoreWeights<T>(scores, weights);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int64_t width = p.value_dim - column0 - part * kTile;
        if (width > 0) MultiplyWeights(weights, dout, width, staging, dv[part]);
        dout.x += kTile;
      }
      StoreWeights<T>(dp, weights);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int64_t width = p.head_dim - column0 - part * kTile;
        if (width > 0) MultiplyWeights(weights, q, width, staging, dk[part]);
        q.x += kTile;
      }
    }
  }
  StoreSums(params.dk, batch, key0, group, p.keys, column0, p.head_dim, dk);
  StoreSums(params.dv, batch, key0, group, p.keys, column0, p.value_dim, dv);
}

template <typename T, int kParts>
Status LaunchDq(const Exec& exec, int64_t batch, BackwardParams<T> params) {
  const AttentionProblem& p = params.problem;
  params.tiles = CeilDiv(p.queries, kTile);
  params.parts = CeilDiv(p.head_dim, kParts * kTile);
  TE_ASSIGN_OR_RETURN(const unsigned int grid,
                      GridOf("attention_backward", batch * p.heads * params.tiles * params.parts));
  if (grid == 0) return OkStatus();
  AttentionDqFallbackKernel<T, kParts><<<grid, kAttentionThreads, 0, StreamOf(exec)>>>(params);
  return LaunchStatus("attention_dq_fallback");
}

template <typename T, int kParts>
Status LaunchDkDv(const Exec& exec, int64_t batch, BackwardParams<T> params) {
  const AttentionProblem& p = params.problem;
  params.tiles = CeilDiv(p.keys, kTile);
  params.parts = CeilDiv(std::max(p.head_dim, p.value_dim), kParts * kTile);
  TE_ASSIGN_OR_RETURN(const unsigned int grid,
                      GridOf("attention_backward", batch * p.groups * params.tiles * params.parts));
  if (grid == 0) return OkStatus();
  AttentionDkDvFallbackKernel<T, kParts><<<grid, kAttentionThreads, 0, StreamOf(exec)>>>(params);
  return LaunchStatus("attention_dk_dv_fallback");
}

template <typename T>
Status LaunchDots(const Exec& exec, int64_t batch, const BackwardParams<T>& params) {
  const int64_t rows = batch * params.problem.heads * params.problem.queries;
  TE_ASSIGN_OR_RETURN(const unsigned int grid,
                      GridOf("attention_backward", CeilDiv(rows, kAttentionThreads / kWarp)));
  if (grid == 0) return OkStatus();
  AttentionDotsKernel<<<grid, kAttentionThreads, 0, StreamOf(exec)>>>(params, rows);
  return LaunchStatus("attention_dots");
}

template <typename T>
Status Run(const Exec& exec, const AttentionBackwardArgs& args) {
  const ArenaScope scope(exec.scratch);
  const int64_t batch = args.q.dim(0);
  TE_ASSIGN_OR_RETURN(
      const TensorView dots,
      exec.scratch->Allocate(DType::kFloat32, {batch, args.q.dim(2), args.q.dim(1)}));
  BackwardParams<T> params = {.problem = ProblemOf(args),
                              .q = DeviceTensor<const T>::Of(args.q),
                              .k = DeviceTensor<const T>::Of(args.k),
                              .v = DeviceTensor<const T>::Of(args.v),
                              .out = DeviceTensor<const T>::Of(args.out),
                              .dout = DeviceTensor<const T>::Of(args.dout),
                              .dq = DeviceTensor<T>::Of(args.dq),
                              .dk = DeviceTensor<T>::Of(args.dk),
                              .dv = DeviceTensor<T>::Of(args.dv),
                              .lse = args.lse.as<float>(),
                              .lse_strides = {},
                              .dots = dots.as<float>(),
                              .tiles = 0,
                              .parts = 0};
  for (int axis = 0; axis < 3; ++axis) params.lse_strides[axis] = args.lse.stride(axis);
  TE_RETURN_IF_ERROR(LaunchDots(exec, batch, params));
  const int64_t width = args.q.dim(3);
  TE_RETURN_IF_ERROR(width <= kTile       ? (LaunchDq<T, 1>(exec, batch, params))
                     : width <= 2 * kTile ? (LaunchDq<T, 2>(exec, batch, params))
                                          : (LaunchDq<T, 4>(exec, batch, params)));
  return std::max(width, args.v.dim(3)) <= kTile ? LaunchDkDv<T, 1>(exec, batch, params)
                                                 : LaunchDkDv<T, 2>(exec, batch, params);
}

}  // namespace

Status AttentionBackwardFallbackCuda(const Exec& exec, const AttentionBackwardArgs& args) {
  // q, k and v come with gradients of their size, out with its own.
  const size_t bytes =
      2 * (args.q.bytes() + args.k.bytes() + args.v.bytes() + args.out.bytes()) + args.lse.bytes();
  Record(exec, "attention_backward", "attention_fallback_backward_cuda", args.q.dtype(),
         static_cast<int64_t>(bytes));
  return args.q.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
