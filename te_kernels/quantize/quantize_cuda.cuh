// What the files of CUDA's quantize share: the kernel from memory, and its launch for one scaling.
#pragma once

#include "te_kernels/cuda/cast_transpose.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/quantize/quantize.h"

namespace te::cuda {

// Blocks on a multiprocessor: as many as the registers hold without spilling.
template <QuantScaling kScaling, bool kWide, typename T>
inline constexpr int kQuantizeBlocks =
    !kWide || std::is_same_v<T, float>                                                 ? 2
    : kScaling == QuantScaling::kBlock1x128 || kScaling == QuantScaling::kBlock128x128 ? 3
                                                                                       : 4;

// Bytes an element (bfloat16, both copies): 2 + 1 + 1. 2048 x 4096 at 4.3 TB/s: 7.8 us; 2048 x
// 22016: 42 us.
template <QuantScaling kScaling, QuantFormat kFormat, bool kWide, typename T>
__global__ void __launch_bounds__(kTileThreads, kQuantizeBlocks<kScaling, kWide, T>)
    QuantizeKernel(QuantTarget to, const T* __restrict__ x, int64_t row_stride) {
  StartAfterEarlierKernels();
  __shared__ TileShared<kScaling> shared;
  // The amax pass read the last tiles last: they are still in the L2 cache.
  const unsigned int index =
      kScaling == QuantScaling::kTensorCurrent ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  const TilePlace at = PlaceOf(index, to);
  Tile<T> tile;
  LoadTile<kWide>(x, row_stride, at, to, tile);
  WriteTile<kScaling, kFormat, kWide>(to, at, tile, shared);
}

// Whether x may be read in vectors of 16 bytes by LoadTile.
template <typename T>
bool ReadsWide(const ConstTensorView& x) {
  return Aligned<kLanes<T>>(x.as<T>(), x.dim(0) > 1 ? x.stride(0) : 0) && x.dim(1) % kTilePart == 0;
}

template <QuantScaling kScaling, typename T>
Status LaunchQuantizeOf(const Exec& exec, const QuantizeArgs& args, const QuantTarget& to) {
  const bool wide = to.wide && ReadsWide<T>(args.x);
  WithFloat8Format(args.out.format, [&](auto format) {
    constexpr QuantFormat kFormat = decltype(format)::value;
    const auto kernel = wide ? QuantizeKernel<kScaling, kFormat, true, T>
                             : QuantizeKernel<kScaling, kFormat, false, T>;
    LaunchOverlapping(exec, kernel, dim3(TileBlocks(to)), dim3(kTileThreads), {}, to,
                      args.x.as<T>(), args.x.stride(0));
  });
  return LaunchStatus("quantize");
}

template <QuantScaling kScaling>
Status LaunchQuantize(const Exec& exec, const QuantizeArgs& args) {
  const QuantTarget to = TargetOf(args.out, args.x.dim(0), args.x.dim(1));
  return args.x.dtype() == DType::kFloat32 ? LaunchQuantizeOf<kScaling, float>(exec, args, to)
                                           : LaunchQuantizeOf<kScaling, bfloat16>(exec, args, to);
}

// Of QuantizeCuda, validated arguments with at least one orientation: with the tensor's scale, and
// with the blocks' (not for empty tensors).
Status QuantizeTensor(const Exec& exec, const QuantizeArgs& args);
Status QuantizeTensorCurrent(const Exec& exec, const QuantizeArgs& args);
Status QuantizeBlocks(const Exec& exec, const QuantizeArgs& args);

}  // namespace te::cuda
