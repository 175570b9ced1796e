#include "te_kernels/cuda/cast_transpose.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/transpose/transpose.h"

namespace te {
namespace {

using cuda::kTilePart;
using cuda::TileShared;

// One tile of 128 x 128 bytes a block, as cast_transpose.cuh moves them.
template <bool kWide>
__global__ void __launch_bounds__(cuda::kTileThreads)
    TransposeKernel(const uint8_t* x, const cuda::QuantTarget to) {
  cuda::StartAfterEarlierKernels();
  __shared__ TileShared<QuantScaling::kTensor> shared;
  const cuda::TilePlace at = cuda::PlaceOf(blockIdx.x, to);
  const uint8_t* p = x + at.row * to.columns + at.column;
  uint32_t left[kTilePart] = {}, right[kTilePart] = {};
#pragma unroll
  for (int i = 0; i < kTilePart; ++i) {
    if (at.row + i >= to.rows) continue;
    if constexpr (kWide) {
      if (at.column >= to.columns) continue;
      const uint2 codes = *reinterpret_cast<const uint2*>(p + i * to.columns);
      left[i] = codes.x;
      right[i] = codes.y;
    } else {
#pragma unroll
      for (int e = 0; e < kTilePart; ++e) {
        if (at.column + e >= to.columns) continue;
        (e < 4 ? left : right)[i] |= uint32_t{p[i * to.columns + e]} << e % 4 * 8;
      }
    }
  }
  cuda::cast_transpose_internal::ShareTransposed(at, 0, left, shared);
  cuda::cast_transpose_internal::ShareTransposed(at, 4, right, shared);
  __syncthreads();
  cuda::cast_transpose_internal::StoreColumnwise<kWide>(to, at, shared);
}

}  // namespace

Status TransposeCuda(const Exec& exec, const TransposeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateTranspose(args));
  Record(exec, "transpose", "transpose_cuda", DType::kUInt8,
         static_cast<int64_t>(args.x.bytes() + args.y.bytes()));
  if (args.x.elements() == 0) return OkStatus();
  QuantSpec spec;
  spec.columnwise_data = args.y;
  const cuda::QuantTarget to = cuda::TargetOf(spec, args.x.dim(0), args.x.dim(1));
  const uint8_t* x = args.x.as<uint8_t>();
  const auto kernel =
      to.wide && cuda::Aligned<8>(x, to.columns) ? TransposeKernel<true> : TransposeKernel<false>;
  cuda::LaunchOverlapping(exec, kernel, dim3(cuda::TileBlocks(to)), dim3(cuda::kTileThreads), {}, x,
                          to);
  return cuda::LaunchStatus("transpose");
}

}  // namespace te
