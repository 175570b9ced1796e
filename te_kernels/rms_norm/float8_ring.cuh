// RMSNorm with FP8 codes where the card copies rows in bulk: the rows of float8_tile.cuh's groups
// come through rings in shared memory, beside the tile's codes. Blocks stay, one a multiprocessor:
// rows of a block's next tile are on their way while the codes of this one are written.
#pragma once

#include "te_kernels/rms_norm/float8_tile.cuh"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/norm_rows_backward.cuh"
#include "te_kernels/rms_norm/row_ring.cuh"

namespace te::norm::float8 {

// How a block divides its shared memory.
struct RingPlan {
  int tile_rows = kPieceRows;  // 16 or 32
  int code_tiles = 0;  // 0: no transposed codes; 2: one is filled while the other is written
  int stages = 0;      // of each group's ring; 0: no rings
};

// What the kernels below have in shared memory beside codes and rings.
inline constexpr int64_t kBesideCodes = 2048;

// `stage_bytes`: of one stage of every ring of a block.
inline StatusOr<RingPlan> PlanRings(const cuda::CudaState& state, const Float8Output& out,
                                    int64_t stage_bytes) {
  TE_ASSIGN_OR_RETURN(const int64_t bytes, RingBytes(state, kBesideCodes));
  if (out.columnwise == nullptr) return RingPlan{.stages = RingStages(bytes, stage_bytes)};
  const int hidden = static_cast<int>(out.columns);
  // Where tiles of 16 rows would leave many multiprocessors idle, those of 32 leave too many.
  const bool many = out.rows / kPieceRows * 8 >= int64_t{state.num_sms()} * 7;
  for (const int rows : {2 * kPieceRows, kPieceRows}) {
    if (rows > kPieceRows && (!many || out.rows % rows != 0)) continue;
    for (const int tiles : {2, 1}) {
      const int stages = RingStages(bytes - tiles * CodesAt(rows, hidden), stage_bytes);
      if (stages > 0) return RingPlan{.tile_rows = rows, .code_tiles = tiles, .stages = stages};
    }
  }
  return RingPlan();
}

// Tiles whose row, gamma and (backward) sums for dgamma a thread can hold.
template <typename Tile>
inline constexpr bool kForwardRing = Tile::kRows == 1 && Tile::kVectors > 0 && Tile::kVectors <= 4;
template <typename Tile>
inline constexpr bool kBackwardRing = kHasRing<bfloat16, kN, Tile>;

// Row k of those that a group goes through: the block's tiles are blockIdx.x, + gridDim.x, ...
template <typename Tile, int kTileRows>
__device__ inline int64_t GroupRow(int group, int k) {
  using Group = Groups<Tile, kTileRows>;
  const int64_t tile = blockIdx.x + int64_t{k / Group::kSteps} * gridDim.x;
  return tile * kTileRows + k % Group::kSteps * Group::kCount + group;
}

// In both kernels all groups of a block pass equally many barriers of their own between two of the
// block's: compute-sanitizer's racecheck takes the ones for the others, and would see races behind
// them where the numbers differ. A group's Sum is behind its reads of a stage, which one thread
// then fills again.

template <int kTileRows, typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, 1)
    ForwardFloat8RingKernel(ForwardRows<bfloat16, P> p, Float8Output out, RingPlan plan) {
  cuda::StartAfterEarlierKernels();
  using Group = Groups<Tile, kTileRows>;
  constexpr int kVectors = Tile::kVectors;
  extern __shared__ uint4 dynamic[];
  __shared__ Group sums;
  __shared__ float shared[kThreads / cuda::kWarp];
  __shared__ uint64_t barriers[Group::kCount][kMostStages];
  static_assert(sizeof(sums) + sizeof(shared) + sizeof(barriers) <= kBesideCodes);
  const int group = threadIdx.x / Tile::kThreads, lane = threadIdx.x % Tile::kThreads;
  const int hidden = static_cast<int>(p.hidden), vectors = hidden / kN;
  const int tile_bytes = CodesAt(kTileRows, hidden), row_bytes = hidden * int{sizeof(bfloat16)};
  uint8_t* const tiles = reinterpret_cast<uint8_t*>(dynamic);
  RowRing<1> ring(tiles + plan.code_tiles * tile_bytes + group * plan.stages * row_bytes,
                  barriers[group], plan.stages, row_bytes);
  const auto fill = [&](int stage, int k) {
    const int64_t t = GroupRow<Tile, kTileRows>(group, k);
    if (t < p.rows) ring.Fill(stage, {p.x + t * p.x_stride});
  };
  if (lane == 0) {
    ring.Initialize();
#pragma unroll 1
    for (int k = 0; k < plan.stages; ++k) fill(k, k);
  }
  __syncthreads();

  cuda::Float8Encoder encoder(out);
  float g[kVectors][kN];
  LoadGammas<Tile>(p.gamma, p.plus, lane, vectors, g);
  uint8_t* codes = tiles;
  int k = 0;
  const int64_t tile_step = int64_t{gridDim.x} * kTileRows;
  for (int64_t first_row = int64_t{blockIdx.x} * kTileRows; first_row < p.rows;
       first_row += tile_step) {
#pragma unroll 1
    for (int step = 0; step < Group::kSteps; ++step, ++k, ring.Advance()) {
      const int tile_row = step * Group::kCount + group;
      const int64_t t = first_row + tile_row;
      uint4 row[1][kVectors];
      ring.Read(lane, Tile::kThreads, vectors, row);
      float squares = 0;
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        float xs[kN];
        cuda::Unpack<bfloat16>(row[0][j], xs);
#pragma unroll
        for (int e = 0; e < kN; ++e) squares = AddProduct(xs[e], xs[e], squares);
      }
      squares = sums.Sum(squares, group, k % 2);
      if (lane == 0) fill(ring.stage(), k + plan.stages);
      const float rstd = Rstd(squares, p.inverse_hidden, p.epsilon);
      if (lane == 0 && p.rstd != nullptr) p.rstd[t] = rstd;
      bfloat16* const y = p.y == nullptr ? nullptr : p.y + t * p.y_stride;
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        float xs[kN];
        cuda::Unpack<bfloat16>(row[0][j], xs);
#pragma unroll
        for (int e = 0; e < kN; ++e) xs[e] = Normalized(xs[e], rstd, g[j][e]);
        StoreVector(xs, out, t, tile_row, i * kN, y, &encoder, codes);
      }
    }
    if (out.columnwise != nullptr)
      StoreTile<kTileRows>(tiles, plan.code_tiles, out, first_row, &codes);
  }
  encoder.Finish<kThreads>(out, shared);
}

// A block keeps the sums of its rows for dgamma in registers. partials: null, or [blocks, hidden].
// dx may be dy or add: a group has read a row before it writes it.
template <int kTileRows, bool kAdd, typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, 1)
    BackwardFloat8RingKernel(BackwardRows<bfloat16, P> p, Float8Output out, RingPlan plan,
                             float* partials) {
  cuda::StartAfterEarlierKernels();
  using Group = Groups<Tile, kTileRows>;
  constexpr int kTensors = kAdd ? 3 : 2;
  constexpr int kVectors = Tile::kVectors;
  extern __shared__ uint4 dynamic[];
  __shared__ Group row_sums;
  __shared__ float shared[kThreads / cuda::kWarp];
  __shared__ uint64_t barriers[Group::kCount][kMostStages];
  static_assert(sizeof(row_sums) + sizeof(shared) + sizeof(barriers) <= kBesideCodes);
  const int group = threadIdx.x / Tile::kThreads, lane = threadIdx.x % Tile::kThreads;
  const int hidden = static_cast<int>(p.hidden), vectors = hidden / kN;
  const int tile_bytes = CodesAt(kTileRows, hidden), row_bytes = hidden * int{sizeof(bfloat16)};
  uint8_t* const tiles = reinterpret_cast<uint8_t*>(dynamic);
  RowRing<kTensors> ring(
      tiles + plan.code_tiles * tile_bytes + group * plan.stages * kTensors * row_bytes,
      barriers[group], plan.stages, row_bytes);
  const auto fill = [&](int stage, int k) {
    const int64_t t = GroupRow<Tile, kTileRows>(group, k);
    if (t < p.rows) FillRow<kAdd>(ring, stage, p, t);
  };
  if (lane == 0) {
    ring.Initialize();
#pragma unroll 1
    for (int k = 0; k < plan.stages; ++k) fill(k, k);
  }
  __syncthreads();

  cuda::Float8Encoder encoder(out);
  float g[kVectors][kN];
  LoadGammas<Tile>(p.gamma, p.plus, lane, vectors, g);
  float dgamma[kVectors][kN] = {};
  uint8_t* codes = tiles;
  int k = 0;
  float rstd = p.rstd[GroupRow<Tile, kTileRows>(group, 0)];  // every block has a tile
  const int64_t tile_step = int64_t{gridDim.x} * kTileRows;
  for (int64_t first_row = int64_t{blockIdx.x} * kTileRows; first_row < p.rows;
       first_row += tile_step) {
#pragma unroll 1
    for (int step = 0; step < Group::kSteps; ++step, ++k, ring.Advance()) {
      const int tile_row = step * Group::kCount + group;
      const int64_t t = first_row + tile_row, next_t = GroupRow<Tile, kTileRows>(group, k + 1);
      float next_rstd = 0;
      if (next_t < p.rows) next_rstd = p.rstd[next_t];
      uint4 row[kTensors][kVectors];
      ring.Read(lane, Tile::kThreads, vectors, row);
      float sums[1] = {};
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        float xs[kN], dys[kN];
        cuda::Unpack<bfloat16>(row[0][j], xs);
        cuda::Unpack<bfloat16>(row[1][j], dys);
        AddTerms<false>(xs, dys, g[j], 0, rstd, sums, dgamma[j], nullptr);
      }
      sums[0] = row_sums.Sum(sums[0], group, k % 2);
      if (lane == 0) fill(ring.stage(), k + plan.stages);
      const float slope = Slope(rstd, sums[0], p.inverse_hidden);
      bfloat16* const dx = p.dx == nullptr ? nullptr : p.dx + t * p.dx_stride;
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        float xs[kN], dys[kN], result[kN];
        cuda::Unpack<bfloat16>(row[0][j], xs);
        cuda::Unpack<bfloat16>(row[1][j], dys);
        if constexpr (kAdd) cuda::Unpack<bfloat16>(row[kTensors - 1][j], result);
        InputGradients<false, kAdd>(xs, dys, g[j], 0, rstd, slope, 0, result);
        StoreVector(result, out, t, tile_row, i * kN, dx, &encoder, codes);
      }
      rstd = next_rstd;
    }
    if (out.columnwise != nullptr)
      StoreTile<kTileRows>(tiles, plan.code_tiles, out, first_row, &codes);
  }
  encoder.Finish<kThreads>(out, shared);
  StorePartials<Tile>(dgamma, reinterpret_cast<float*>(dynamic), hidden, partials);
}

}  // namespace te::norm::float8
