// RMSNorm that writes the FP8 copies of its result. A block takes 16 whole rows: its threads form
// groups that go through rows as the dense kernels do (the same sums in the same order: the same
// bits), leave the codes in shared memory, and the block writes them transposed, 16 bytes a column.
//
// Why whole rows: the alternative is a kernel for the rows' statistics and a tile kernel that reads
// x again, from the L2 cache. Predicted for 4096 columns at 4.3 TB/s (HBM) and 5.5 (L2), 1 us to
// start a kernel and 1 to fill its pipe; forward / backward, us:
//                    bytes an element        2048 tokens    4096 tokens
//   16 whole rows    4       / 10 with add   9.8  / 21.5    17.6 / 41
//   two kernels      4 (+ 2) / 10 (+ 6)      14.9 / 32.7    25.8 / 61
// 2048 rows are 128 blocks of 132 multiprocessors: more rows a block would leave some idle. What it
// costs: a 16-byte piece of a column is half of a sector; the L2 cache puts the halves together.
#include <algorithm>

#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/norm_rows_backward.cuh"
#include "te_kernels/rms_norm/rms_norm_float8.h"

namespace te::norm {
namespace {

using cuda::Float8Output;

constexpr int kN = 8;                    // elements of a vector
constexpr int kTileRows = 16;            // of a block's tile
constexpr int kThreads = 512;            // of a block
constexpr int kMostShared = 160 * 1024;  // that every architecture can give a block

// A tile of the dense kernels whose threads are one of a block's groups.
template <typename Tile>
struct Groups {
  static constexpr int kCount = kThreads / Tile::kThreads;
  static constexpr int kSteps = kTileRows / kCount;  // rows of a group
  static_assert(kCount * Tile::kThreads == kThreads && kSteps * kCount == kTileRows);

  float sums[2][kCount][Tile::kWarps];

  // cuda::RowSum, of a group. The barrier of the next sum lies between one buffer's uses.
  __device__ float Sum(float value, int group, int buffer) {
    value = cuda::WarpSum(value);
    if constexpr (Tile::kWarps > 1) {
      float(&shared)[Tile::kWarps] = sums[buffer][group];
      if (threadIdx.x % cuda::kWarp == 0) shared[threadIdx.x / cuda::kWarp % Tile::kWarps] = value;
      // One of the hardware's barriers for each group; 0 is __syncthreads'.
      asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(Tile::kThreads) : "memory");
      value = 0;
#pragma unroll
      for (int w = 0; w < Tile::kWarps; ++w) value += shared[w];
    }
    return value;
  }
};

// The tile's codes as [16][hidden] in shared memory; by all threads, between barriers.
__device__ inline void StoreColumns(const uint8_t* codes, const Float8Output& out,
                                    int64_t first_row) {
  const int hidden = static_cast<int>(out.columns);
  for (int column = threadIdx.x * 4; column < hidden; column += kThreads * 4) {
    cuda::StoreTransposed<kTileRows>(codes + column, hidden,
                                     out.columnwise + column * out.rows + first_row, out.rows);
  }
}

// The codes of a vector to both orientations, and the dense vector.
__device__ inline void StoreVector(const float (&values)[kN], const Float8Output& out, int64_t row,
                                   int tile_row, int column, bfloat16* dense,
                                   cuda::Float8Encoder* encoder, uint8_t* tile) {
  uint4 rounded;
  const uint2 codes = encoder->Encode(values, &rounded);
  if (dense != nullptr) cuda::StoreVector(dense + column, rounded);
  if (out.rowwise != nullptr)
    *reinterpret_cast<uint2*>(out.rowwise + row * out.columns + column) = codes;
  if (out.columnwise != nullptr)
    *reinterpret_cast<uint2*>(tile + tile_row * static_cast<int>(out.columns) + column) = codes;
}

// Both kernels are persistent grids: a block goes through every gridDim'th tile, and the next row
// is on its way while a group works on one.

// ---- Forward ----

// Blocks of a multiprocessor: up to 64 registers a thread, 128 where two rows need more.
template <typename Tile>
inline constexpr int kForwardBlocks = Tile::kVectors >= 4 ? 1 : 2;

template <typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, kForwardBlocks<Tile>)
    ForwardFloat8Kernel(ForwardRows<bfloat16, P> p, Float8Output out) {
  using Group = Groups<Tile>;
  extern __shared__ uint4 dynamic[];
  uint8_t* const codes = reinterpret_cast<uint8_t*>(dynamic);
  __shared__ Group sums;
  __shared__ float shared[kThreads / cuda::kWarp];
  const int group = threadIdx.x / Tile::kThreads, lane = threadIdx.x % Tile::kThreads;
  const int vectors = static_cast<int>(p.hidden / kN);
  cuda::Float8Encoder encoder(out);

  cuda::Row<bfloat16, kN, Tile> x;
  int64_t first_row = int64_t{blockIdx.x} * kTileRows;
  const int64_t tile_step = int64_t{gridDim.x} * kTileRows;
  if (first_row < p.rows) x.Read(p.x + (first_row + group) * p.x_stride, lane, vectors);
  for (int buffer = 0; first_row < p.rows; first_row += tile_step) {
#pragma unroll 1
    for (int step = 0; step < Group::kSteps; ++step, buffer ^= 1) {
      const int tile_row = step * Group::kCount + group;
      const int64_t t = first_row + tile_row;
      const int64_t next_t =
          step + 1 < Group::kSteps ? t + Group::kCount : first_row + tile_step + group;
      cuda::Row<bfloat16, kN, Tile> next;
      if (next_t < p.rows) next.Read(p.x + next_t * p.x_stride, lane, vectors);
      float squares = 0;
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        float xs[kN];
        x.Get(j, xs);
#pragma unroll
        for (int e = 0; e < kN; ++e) squares = AddProduct(xs[e], xs[e], squares);
      }
      const float rstd = Rstd(sums.Sum(squares, group, buffer), p.inverse_hidden, p.epsilon);
      if (lane == 0 && p.rstd != nullptr) p.rstd[t] = rstd;
      bfloat16* const y = p.y == nullptr ? nullptr : p.y + t * p.y_stride;
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        float xs[kN], gamma[kN];
        x.Get(j, xs);
        cuda::LoadParameter<kN>(p.gamma + i * kN, gamma);
#pragma unroll
        for (int e = 0; e < kN; ++e) xs[e] = Normalized(xs[e], rstd, gamma[e], p.plus);
        StoreVector(xs, out, t, tile_row, i * kN, y, &encoder, codes);
      }
      x = next;
    }
    if (out.columnwise == nullptr) continue;
    __syncthreads();
    StoreColumns(codes, out, first_row);
    __syncthreads();
  }
  encoder.Finish<kThreads>(out, shared);
}

// ---- Backward ----

// A block keeps the sums of its rows for dgamma in registers. partials: null, or [blocks, hidden].
// dx may be dy or add: a group has read a row before it writes it.
template <bool kAdd, typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, 1)
    BackwardFloat8Kernel(BackwardRows<bfloat16, P> p, Float8Output out, float* partials) {
  using Group = Groups<Tile>;
  constexpr bool kAhead = kReadsAhead<false, bfloat16, kN, Tile>;
  extern __shared__ uint4 dynamic[];
  uint8_t* const codes = reinterpret_cast<uint8_t*>(dynamic);
  __shared__ Group row_sums;
  __shared__ float shared[kThreads / cuda::kWarp];
  const int group = threadIdx.x / Tile::kThreads, lane = threadIdx.x % Tile::kThreads;
  const int vectors = static_cast<int>(p.hidden / kN);
  cuda::Float8Encoder encoder(out);
  float dgamma[Tile::kVectors][kN] = {};

  BackwardRow<false, kAdd, kN, Tile, bfloat16> row;
  int64_t first_row = int64_t{blockIdx.x} * kTileRows;
  const int64_t tile_step = int64_t{gridDim.x} * kTileRows;
  if (first_row < p.rows) row.Read(p, first_row + group, lane, vectors);
  for (int buffer = 0; first_row < p.rows; first_row += tile_step) {
#pragma unroll 1
    for (int step = 0; step < Group::kSteps; ++step, buffer ^= 1) {
      const int tile_row = step * Group::kCount + group;
      const int64_t t = first_row + tile_row;
      const int64_t next_t =
          step + 1 < Group::kSteps ? t + Group::kCount : first_row + tile_step + group;
      BackwardRow<false, kAdd, kN, Tile, bfloat16> next;
      if constexpr (kAhead) {
        if (next_t < p.rows) next.Read(p, next_t, lane, vectors);
      }
      float sums[1] = {};
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        float xs[kN], dys[kN], g[kN];
        row.x.Get(j, xs);
        row.dy.Get(j, dys);
        LoadGamma(p.gamma + i * kN, p.plus, g);
        AddTerms<false>(xs, dys, g, 0, row.rstd, sums, dgamma[j], nullptr);
      }
      const float slope = Slope(row.rstd, row_sums.Sum(sums[0], group, buffer), p.inverse_hidden);
      bfloat16* const dx = p.dx == nullptr ? nullptr : p.dx + t * p.dx_stride;
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        float xs[kN], dys[kN], g[kN], result[kN];
        row.x.Get(j, xs);
        row.dy.Get(j, dys);
        if constexpr (kAdd) row.add.Get(j, result);
        LoadGamma(p.gamma + i * kN, p.plus, g);
        InputGradients<false, kAdd>(xs, dys, g, 0, row.rstd, slope, 0, result);
        StoreVector(result, out, t, tile_row, i * kN, dx, &encoder, codes);
      }
      if constexpr (kAhead) {
        row = next;
      } else {
        if (next_t < p.rows) row.Read(p, next_t, lane, vectors);
      }
    }
    if (out.columnwise == nullptr) continue;
    __syncthreads();
    StoreColumns(codes, out, first_row);
    __syncthreads();
  }
  encoder.Finish<kThreads>(out, shared);

  if (partials == nullptr) return;
  // The groups in order, through the codes' memory.
  float* const columns = reinterpret_cast<float*>(dynamic);
  const int hidden = static_cast<int>(p.hidden);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < Tile::kVectors; ++j) {
    const int i = lane + j * Tile::kThreads;
    if (i < vectors) cuda::StoreFloats<kN>(columns + group * hidden + i * kN, dgamma[j]);
  }
  __syncthreads();
  for (int h = threadIdx.x; h < hidden; h += kThreads) {
    float sum = 0;
#pragma unroll
    for (int g = 0; g < Group::kCount; ++g) sum += columns[g * hidden + h];
    partials[blockIdx.x * p.hidden + h] = sum;
  }
}

// ---- Launchers ----

// Codes of 16 rows, or a float of each group for each column.
template <typename Tile>
int SharedBytes(int64_t hidden) {
  return static_cast<int>(hidden) * std::max(kTileRows, 4 * Groups<Tile>::kCount);
}

template <typename Kernel>
Status AllowShared(Kernel kernel, int bytes) {
  return cuda::ToStatus(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "cudaFuncSetAttribute");
}

// As many tiles for one block as for another, as far as they divide.
int64_t Blocks(int64_t rows, int64_t most) {
  const int64_t tiles = rows / kTileRows, rounds = (tiles + most - 1) / most;
  return (tiles + rounds - 1) / rounds;
}

// Tiles of rows held in registers by at most kThreads threads.
template <typename Tile>
inline constexpr bool kFits = Tile::kVectors > 0 && Tile::kThreads <= kThreads;

bool HiddenFits(int64_t hidden) {
  return hidden % cuda::kFloat8Multiple == 0 && hidden * kTileRows <= kMostShared;
}

bool Vectors(const ConstTensorView& t) {
  return !t.defined() || cuda::Aligned<kN>(t.as<bfloat16>(), t.stride(0));
}
bool GammaVectors(const ConstTensorView& gamma) {
  return gamma.dtype() == DType::kFloat32 ? ParameterAligned<kN>(gamma.as<float>())
                                          : ParameterAligned<kN>(gamma.as<bfloat16>());
}

template <typename P>
Status Forward(const Exec& exec, const RmsNormForwardArgs& args) {
  ForwardRows<bfloat16, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.x = args.x.as<bfloat16>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.epsilon = args.epsilon;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  rows.y = args.y.dense.as<bfloat16>();
  rows.y_stride = args.y.dense.stride(0);
  rows.rstd = args.rstd.defined() ? args.rstd.as<float>() : nullptr;
  const Float8Output out = cuda::Float8OutputOf(args.y.quant, rows.rows, rows.hidden);
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const int num_sms = state->num_sms();
  return cuda::WithRowTile<kN>(rows.hidden / kN, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    if constexpr (kFits<Tile>) {
      const auto kernel = ForwardFloat8Kernel<Tile, P>;
      const int bytes = SharedBytes<Tile>(rows.hidden);
      TE_RETURN_IF_ERROR(AllowShared(kernel, bytes));
      const int64_t blocks = Blocks(rows.rows, int64_t{num_sms} * kForwardBlocks<Tile>);
      kernel<<<static_cast<unsigned int>(blocks), kThreads, bytes, cuda::StreamOf(exec)>>>(rows,
                                                                                           out);
      return cuda::LaunchStatus("rms_norm_forward_fp8");
    } else {
      return Internal("rms_norm_forward: no FP8 kernel for rows of {}", rows.hidden);
    }
  });
}

template <bool kAdd, typename P>
Status Backward(const Exec& exec, const RmsNormBackwardArgs& args) {
  BackwardRows<bfloat16, P> rows{};
  rows.rows = args.x.dim(0);
  rows.hidden = args.x.dim(1);
  rows.dy = args.dy.as<bfloat16>();
  rows.dy_stride = args.dy.stride(0);
  rows.x = args.x.as<bfloat16>();
  rows.x_stride = args.x.stride(0);
  rows.gamma = args.gamma.as<P>();
  rows.rstd = args.rstd.as<float>();
  rows.plus = args.zero_centered_gamma ? 1.0f : 0.0f;
  rows.inverse_hidden = 1.0f / static_cast<float>(rows.hidden);
  rows.add = args.add.as<bfloat16>();
  rows.add_stride = args.add.stride(0);
  rows.dx = args.dx.dense.as<bfloat16>();
  rows.dx_stride = args.dx.dense.stride(0);
  const Float8Output out = cuda::Float8OutputOf(args.dx.quant, rows.rows, rows.hidden);
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const int num_sms = state->num_sms();
  return WithBackwardTile<false, kN>(rows.hidden / kN, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    if constexpr (kFits<Tile>) {
      const auto kernel = BackwardFloat8Kernel<kAdd, Tile, P>;
      const int bytes = SharedBytes<Tile>(rows.hidden);
      TE_RETURN_IF_ERROR(AllowShared(kernel, bytes));
      const int64_t blocks = Blocks(rows.rows, num_sms);
      ArenaScope scope(exec.scratch);
      float* partials = nullptr;
      if (args.dgamma.defined()) {
        TE_ASSIGN_OR_RETURN(TensorView scratch,
                            exec.scratch->Allocate(DType::kFloat32, {blocks, rows.hidden}));
        partials = scratch.as<float>();
      }
      kernel<<<static_cast<unsigned int>(blocks), kThreads, bytes, cuda::StreamOf(exec)>>>(
          rows, out, partials);
      TE_RETURN_IF_ERROR(cuda::LaunchStatus("rms_norm_backward_fp8"));
      if (partials == nullptr) return OkStatus();
      return cuda::CombinePartials(exec, partials, blocks, rows.hidden, args.accumulate_dgamma,
                                   args.dgamma);
    } else {
      return Internal("rms_norm_backward: no FP8 kernel for rows of {}", rows.hidden);
    }
  });
}

size_t Bytes(const ConstTensorView& optional) { return optional.defined() ? optional.bytes() : 0; }

}  // namespace

bool FusesForward(const RmsNormForwardArgs& args) {
  const int64_t rows = args.x.dim(0), hidden = args.x.dim(1);
  return args.x.dtype() == DType::kBFloat16 && HiddenFits(hidden) &&
         cuda::FusesFloat8(args.y.quant, rows, hidden) && Vectors(args.x) &&
         Vectors(args.y.dense) && GammaVectors(args.gamma);
}

bool FusesBackward(const RmsNormBackwardArgs& args) {
  const int64_t rows = args.x.dim(0), hidden = args.x.dim(1);
  return args.x.dtype() == DType::kBFloat16 && HiddenFits(hidden) &&
         cuda::FusesFloat8(args.dx.quant, rows, hidden) && Vectors(args.x) && Vectors(args.dy) &&
         Vectors(args.add) && Vectors(args.dx.dense) && GammaVectors(args.gamma);
}

Status RmsNormForwardFloat8Cuda(const Exec& exec, const RmsNormForwardArgs& args) {
  Record(exec, "rms_norm_forward", "rms_norm_forward_fp8_cuda", args.x.dtype(),
         static_cast<int64_t>(args.x.bytes() + args.gamma.bytes() + Bytes(args.rstd) +
                              Bytes(args.y.dense)) +
             cuda::Float8Bytes(args.y.quant));
  return args.gamma.dtype() == DType::kFloat32 ? Forward<float>(exec, args)
                                               : Forward<bfloat16>(exec, args);
}

Status RmsNormBackwardFloat8Cuda(const Exec& exec, const RmsNormBackwardArgs& args) {
  Record(exec, "rms_norm_backward", "rms_norm_backward_fp8_cuda", args.x.dtype(),
         static_cast<int64_t>(2 * args.x.bytes() + Bytes(args.add) + args.gamma.bytes() +
                              args.rstd.bytes() + Bytes(args.dx.dense) +
                              Bytes(args.dgamma) * (args.accumulate_dgamma ? 2 : 1)) +
             cuda::Float8Bytes(args.dx.quant));
  const bool wide = args.gamma.dtype() == DType::kFloat32;
  if (args.add.defined())
    return wide ? Backward<true, float>(exec, args) : Backward<true, bfloat16>(exec, args);
  return wide ? Backward<false, float>(exec, args) : Backward<false, bfloat16>(exec, args);
}

}  // namespace te::norm
