// RMSNorm that writes the FP8 copies of its result. A block takes 16 or 32 whole rows: its threads
// form groups that go through rows as the dense kernels do (the same sums in the same order: the
// same bits), leave the codes in shared memory, and the block writes them transposed.
//
// Why whole rows: the alternative is a kernel for the rows' statistics and a tile kernel that reads
// x again, from the L2 cache: predicted, half as much time again. Rows come through rings in shared
// memory (float8_ring.cuh) where the card copies in bulk. Two limits at 4096 columns, forward /
// backward with add, us (128 multiprocessors of 4 schedulers at 1.755 GHz), and one H200:
//                                               2048 tokens    4096 tokens
//   memory: 4 / 10 bytes an element             7.8 / 19.5     15.6 / 39
//   issue: 14.5 / 27 instructions an element    4.2 / 7.9      8.5  / 15.8
//   one row ahead in registers, 16 rows a tile  18.8 / 36.1    40   / 73
//   rings, 16 rows                              17.7 / 33.4    35.6 / 65.6
//   rings, 32 rows                              16.9 / 31.9    22.2 / 52.2
// A column's piece of 16 bytes is half of a sector: 14 us more for 4096 x 4096 codes, 100 for four
// times as many. 2048 tokens are 64 tiles of 32 rows, for 132 multiprocessors; pairs of blocks that
// put 16 rows each together took 15.8 / 31.4 there but 25.1 / 55.4 for 4096 (bench/notes.md 14).
#include <algorithm>
#include <type_traits>

#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/rms_norm/float8_ring.cuh"
#include "te_kernels/rms_norm/float8_tile.cuh"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/norm_rows_backward.cuh"
#include "te_kernels/rms_norm/rms_norm_float8.h"

namespace te::norm {
namespace {

using cuda::Float8Output;
using float8::BackwardFloat8RingKernel;
using float8::CodesAt;
using float8::ForwardFloat8RingKernel;
using float8::Groups;
using float8::kBackwardRing;
using float8::kForwardRing;
using float8::kGroups;
using float8::kN;
using float8::kPieceRows;
using float8::kThreads;
using float8::PlanRings;
using float8::RingPlan;
using float8::StorePartials;
using float8::StoreTile;
using float8::StoreVector;

constexpr int kMostShared = 160 * 1024;  // that every architecture can give a block

// Kernels for cards without bulk copies and for rows whose rings find no room beside the codes.
// Both are persistent grids: a block goes through every gridDim'th tile, and the next row is on its
// way while a group works on one.
constexpr int kTileRows = kPieceRows;

// ---- Forward ----

// Blocks of a multiprocessor: up to 64 registers a thread, 128 where two rows need more.
template <typename Tile>
inline constexpr int kForwardBlocks = Tile::kVectors >= 4 ? 1 : 2;

template <typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, kForwardBlocks<Tile>)
    ForwardFloat8Kernel(ForwardRows<bfloat16, P> p, Float8Output out) {
  cuda::StartAfterEarlierKernels();
  using Group = Groups<Tile, kTileRows>;
  extern __shared__ uint4 dynamic[];
  uint8_t* codes = reinterpret_cast<uint8_t*>(dynamic);
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
    if (out.columnwise != nullptr) StoreTile<kTileRows>(codes, 1, out, first_row, &codes);
  }
  encoder.Finish<kThreads>(out, shared);
}

// ---- Backward ----

// A block keeps the sums of its rows for dgamma in registers. partials: null, or [blocks, hidden].
// dx may be dy or add: a group has read a row before it writes it.
template <bool kAdd, typename Tile, typename P>
__global__ void __launch_bounds__(kThreads, 1)
    BackwardFloat8Kernel(BackwardRows<bfloat16, P> p, Float8Output out, float* partials) {
  cuda::StartAfterEarlierKernels();
  using Group = Groups<Tile, kTileRows>;
  constexpr bool kAhead = kReadsAhead<false, bfloat16, kN, Tile>;
  extern __shared__ uint4 dynamic[];
  uint8_t* codes = reinterpret_cast<uint8_t*>(dynamic);
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
    if (out.columnwise != nullptr) StoreTile<kTileRows>(codes, 1, out, first_row, &codes);
  }
  encoder.Finish<kThreads>(out, shared);

  StorePartials<Tile>(dgamma, reinterpret_cast<float*>(dynamic), static_cast<int>(p.hidden),
                      partials);
}

// ---- Launchers ----

// A tile's codes, or a float of each group for each column.
template <typename Tile>
int SharedBytes(int64_t hidden) {
  return static_cast<int>(hidden) * std::max(kTileRows, 4 * kGroups<Tile>);
}

// The codes and the rings.
int64_t SharedBytes(const RingPlan& plan, int64_t hidden, int64_t stage_bytes) {
  return plan.code_tiles * CodesAt(plan.tile_rows, static_cast<int>(hidden)) +
         plan.stages * stage_bytes;
}

template <typename... Parameters>
Status Launch(const Exec& exec, const char* name, void (*kernel)(Parameters...), int64_t blocks,
              int64_t bytes, const std::type_identity_t<Parameters>&... args) {
  TE_RETURN_IF_ERROR(
      cuda::ToStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(bytes)),
                     "cudaFuncSetAttribute"));
  cuda::LaunchOverlapping(exec, kernel, dim3(static_cast<unsigned int>(blocks)), dim3(kThreads),
                          {.shared_bytes = static_cast<size_t>(bytes)}, args...);
  return cuda::LaunchStatus(name);
}

// As many tiles for one block as for another, as far as they divide.
int64_t Blocks(int64_t tiles, int64_t most) {
  const int64_t rounds = (tiles + most - 1) / most;
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
  return cuda::WithRowTile<kN>(rows.hidden / kN, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    if constexpr (kFits<Tile>) {
      constexpr const char* kName = "rms_norm_forward_fp8";
      if constexpr (kForwardRing<Tile>) {
        const int64_t stage_bytes = 2 * rows.hidden * kGroups<Tile>;
        TE_ASSIGN_OR_RETURN(const RingPlan plan, PlanRings(*state, out, stage_bytes));
        if (plan.stages > 0) {
          return Launch(exec, kName,
                        plan.tile_rows == kPieceRows
                            ? ForwardFloat8RingKernel<kPieceRows, Tile, P>
                            : ForwardFloat8RingKernel<2 * kPieceRows, Tile, P>,
                        Blocks(rows.rows / plan.tile_rows, state->num_sms()),
                        SharedBytes(plan, rows.hidden, stage_bytes), rows, out, plan);
        }
      }
      return Launch(exec, kName, ForwardFloat8Kernel<Tile, P>,
                    Blocks(rows.rows / kTileRows, int64_t{state->num_sms()} * kForwardBlocks<Tile>),
                    SharedBytes<Tile>(rows.hidden), rows, out);
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
  return WithBackwardTile<false, kN>(rows.hidden / kN, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    if constexpr (kFits<Tile>) {
      constexpr const char* kName = "rms_norm_backward_fp8";
      const int64_t stage_bytes = (kAdd ? 3 : 2) * 2 * rows.hidden * kGroups<Tile>;
      RingPlan plan;
      if constexpr (kBackwardRing<Tile>) {
        TE_ASSIGN_OR_RETURN(plan, PlanRings(*state, out, stage_bytes));
      }
      const int64_t blocks = Blocks(rows.rows / plan.tile_rows, state->num_sms());
      ArenaScope scope(exec.scratch);
      float* partials = nullptr;
      if (args.dgamma.defined()) {
        TE_ASSIGN_OR_RETURN(TensorView scratch,
                            exec.scratch->Allocate(DType::kFloat32, {blocks, rows.hidden}));
        partials = scratch.as<float>();
      }
      const auto launch = [&]() -> Status {
        if constexpr (kBackwardRing<Tile>) {
          if (plan.stages > 0) {
            return Launch(exec, kName,
                          plan.tile_rows == kPieceRows
                              ? BackwardFloat8RingKernel<kPieceRows, kAdd, Tile, P>
                              : BackwardFloat8RingKernel<2 * kPieceRows, kAdd, Tile, P>,
                          blocks, SharedBytes(plan, rows.hidden, stage_bytes), rows, out, plan,
                          partials);
          }
        }
        return Launch(exec, kName, BackwardFloat8Kernel<kAdd, Tile, P>, blocks,
                      SharedBytes<Tile>(rows.hidden), rows, out, partials);
      };
      TE_RETURN_IF_ERROR(launch());
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
