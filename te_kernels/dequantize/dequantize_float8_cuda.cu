// FP8 codes that become codes of another scale, transposed ones besides, over tiles of 128 x 128
// (te_kernels/cuda/cast_transpose.cuh): attention's output for the projection behind it.
//
// Bytes of an element: 1 + 2; 4096 x 4096 at 4.3 TB/s: 11.7 us.
#include "te_kernels/cuda/cast_transpose.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/dequantize/dequantize_float8.h"
#include "te_kernels/dequantize/dequantize_sink.h"

namespace te::dequantize {
namespace {

using cuda::kTilePart;
using cuda::kTileThreads;

template <QuantFormat kFormat>
struct CodesProducer {
  static constexpr int kRowsInFlight = kTilePart;
  using Held = uint2;

  __device__ Held Load(int64_t row, int64_t column) const {
    return __ldcs(reinterpret_cast<const uint2*>(codes + row * columns + column));
  }
  __device__ void Values(const Held& held, int64_t, int64_t, float (&values)[kTilePart]) const {
    cuda::Float8sToFloats<kFormat>(held, values);
#pragma unroll
    for (float& value : values) value = __fmul_rn(value, scale_inv);
  }

  const uint8_t* codes;
  int64_t columns;
  float scale_inv;
};

constexpr int kBlocks = 4;  // on a multiprocessor: as many as the registers hold without spilling

template <QuantFormat kFrom, QuantFormat kTo>
__global__ void __launch_bounds__(kTileThreads, kBlocks)
    DequantizeFloat8Kernel(cuda::QuantTarget to, const uint8_t* __restrict__ codes,
                           const float* __restrict__ scale_inv) {
  cuda::StartAfterEarlierKernels();
  __shared__ cuda::TileShared<QuantScaling::kTensor> shared;
  const cuda::TilePlace at = cuda::PlaceOf(blockIdx.x, to);
  cuda::Tile<bfloat16> tile;
  cuda::Produce(at, to, CodesProducer<kFrom>{codes, to.columns, __ldg(scale_inv)}, tile);
  cuda::WriteTile<QuantScaling::kTensor, kTo>(to, at, tile, shared);
}

}  // namespace

bool FusesFloat8(const DequantizeArgs& args) {
  const QuantSpec& x = args.x;
  const bool one_scale =
      x.scaling == QuantScaling::kTensor || x.scaling == QuantScaling::kTensorCurrent;
  const bool format = x.format == cuda::kE4M3 || x.format == cuda::kE5M2;
  const Shape shape = DequantizedShape(args);
  return one_scale && format && args.y.dense.rank() == 0 && args.dtype == DType::kBFloat16 &&
         cuda::FusesFloat8(args.y.quant, shape[0], shape[1]) &&
         cuda::Aligned<kTilePart>(Codes(args).as<uint8_t>(), shape[1]);
}

Status DequantizeFloat8Cuda(const Exec& exec, const DequantizeArgs& args) {
  const TensorView& codes = Codes(args);
  const cuda::QuantTarget to = cuda::TargetOf(args.y.quant, codes.dim(0), codes.dim(1));
  Record(exec, "dequantize", "dequantize_fp8_cuda", args.dtype,
         static_cast<int64_t>(codes.bytes()) + cuda::Float8Bytes(args.y.quant));
  cuda::WithFloat8Format(args.x.format, [&](auto from) {
    cuda::WithFloat8Format(args.y.quant.format, [&](auto into) {
      cuda::LaunchOverlapping(exec,
                              DequantizeFloat8Kernel<decltype(from)::value, decltype(into)::value>,
                              dim3(cuda::TileBlocks(to)), dim3(kTileThreads), {}, to,
                              codes.as<uint8_t>(), args.x.scale_inv);
    });
  });
  return cuda::LaunchStatus("dequantize_fp8");
}

}  // namespace te::dequantize
