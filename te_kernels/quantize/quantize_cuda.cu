// One pass over tiles of 128 x 128 (te_kernels/cuda/cast_transpose.cuh); a tensor's current scale
// needs its amax first: a pass of its own, whose result each block of the second turns into the
// scale. The amax is the maximum of the bits of non-negative floats: the same in any order.
#include "te_kernels/quantize/quantize_cuda.cuh"
#include "te_kernels/quantize/quantize_cuda.h"

namespace te {
namespace {

using cuda::QuantTarget;

template <bool kWide, typename T>
__global__ void __launch_bounds__(cuda::kTileThreads)
    AmaxKernel(QuantTarget to, const T* __restrict__ x, int64_t row_stride) {
  __shared__ cuda::WarpMaxima shared;
  cuda::Tile<T> tile;
  cuda::LoadTile<kWide>(x, row_stride, cuda::PlaceOf(blockIdx.x, to), to, tile);
  float maximum = 0;
#pragma unroll
  for (int i = 0; i < cuda::kTilePart; ++i) {
    float values[cuda::kTilePart];
    tile.Get(i, values);
    maximum = cuda::MaxAbs(values, maximum);
  }
  cuda::ShareMaximum(maximum, shared);
  __syncthreads();
  cuda::AccumulateAmax(shared, to.amax);
}

template <typename T>
Status AccumulateAmaxOf(const Exec& exec, const QuantizeArgs& args) {
  const QuantTarget to = cuda::TargetOf(args.out, args.x.dim(0), args.x.dim(1));
  const auto kernel = cuda::ReadsWide<T>(args.x) ? AmaxKernel<true, T> : AmaxKernel<false, T>;
  kernel<<<cuda::TileBlocks(to), cuda::kTileThreads, 0, cuda::StreamOf(exec)>>>(to, args.x.as<T>(),
                                                                                args.x.stride(0));
  return cuda::LaunchStatus("quantize: amax");
}

Status AccumulateAmax(const Exec& exec, const QuantizeArgs& args) {
  if (args.x.elements() == 0) return OkStatus();
  return args.x.dtype() == DType::kFloat32 ? AccumulateAmaxOf<float>(exec, args)
                                           : AccumulateAmaxOf<bfloat16>(exec, args);
}

// Without codes: the scale_inv alone, of a scale (1 when there is none) or an amax.
__global__ void ScaleInvKernel(QuantTarget to, QuantFormat format, bool current) {
  float scale = to.scale == nullptr ? 1.0f : *to.scale;
  if (current) {
    scale = format == cuda::kE4M3
                ? cuda::ScaleFromAmax<cuda::kE4M3>(*to.amax, to.power_of_2_scales, to.amax_epsilon)
                : cuda::ScaleFromAmax<cuda::kE5M2>(*to.amax, to.power_of_2_scales, to.amax_epsilon);
  }
  *to.scale_inv = __fdiv_rn(1.0f, scale);
}

Status WriteScaleInv(const Exec& exec, const QuantizeArgs& args, bool current) {
  if (args.out.scale_inv == nullptr) return OkStatus();
  const QuantTarget to = cuda::TargetOf(args.out, args.x.dim(0), args.x.dim(1));
  ScaleInvKernel<<<1, 1, 0, cuda::StreamOf(exec)>>>(to, args.out.format, current);
  return cuda::LaunchStatus("quantize: scale_inv");
}

bool WantsCodes(const QuantSpec& out) {
  return out.rowwise_data.rank() != 0 || out.columnwise_data.rank() != 0;
}

void RecordQuantize(const Exec& exec, const char* kernel, const QuantizeArgs& args, int reads) {
  const QuantSpec& out = args.out;
  int64_t bytes = reads * static_cast<int64_t>(args.x.bytes());
  for (const TensorView* view : {&out.rowwise_data, &out.columnwise_data, &out.rowwise_scale_inv,
                                 &out.columnwise_scale_inv}) {
    if (view->rank() != 0) bytes += static_cast<int64_t>(view->bytes());
  }
  Record(exec, "quantize", kernel, args.x.dtype(), bytes);
}

Status RunTensor(const Exec& exec, const QuantizeArgs& args) {
  if (WantsCodes(args.out)) {
    RecordQuantize(exec, "quantize_tensor_cuda", args, 1);
    return cuda::QuantizeTensor(exec, args);
  }
  if (args.out.amax != nullptr) {
    RecordQuantize(exec, "quantize_amax_cuda", args, 1);
    TE_RETURN_IF_ERROR(AccumulateAmax(exec, args));
  }
  return WriteScaleInv(exec, args, false);
}

Status RunTensorCurrent(const Exec& exec, const QuantizeArgs& args) {
  QuantizeArgs with_amax = args;
  ArenaScope scope(exec.scratch);
  if (args.out.amax == nullptr) {
    if (!WantsCodes(args.out) && args.out.scale_inv == nullptr) return OkStatus();
    TE_ASSIGN_OR_RETURN(const TensorView amax, exec.scratch->Allocate(DType::kFloat32, {1}));
    with_amax.out.amax = amax.as<float>();
  }
  TE_RETURN_IF_ERROR(
      cuda::ToStatus(cudaMemsetAsync(with_amax.out.amax, 0, sizeof(float), cuda::StreamOf(exec)),
                     "quantize: clearing amax"));
  RecordQuantize(exec, "quantize_tensor_current_cuda", args, WantsCodes(args.out) ? 2 : 1);
  TE_RETURN_IF_ERROR(AccumulateAmax(exec, with_amax));
  if (!WantsCodes(args.out)) return WriteScaleInv(exec, with_amax, true);
  return cuda::QuantizeTensorCurrent(exec, with_amax);
}

Status RunBlocks(const Exec& exec, const QuantizeArgs& args) {
  if (!WantsCodes(args.out) || args.x.elements() == 0) return OkStatus();
  const bool squares = args.out.scaling == QuantScaling::kBlock128x128;
  RecordQuantize(exec, squares ? "quantize_block_128x128_cuda" : "quantize_block_1x128_cuda", args,
                 1);
  return cuda::QuantizeBlocks(exec, args);
}

}  // namespace

Status cuda::QuantizeWithAmax(const Exec& exec, const QuantizeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateQuantize(args));
  if (args.out.scaling != QuantScaling::kTensorCurrent || args.out.amax == nullptr) {
    return InvalidArgument(
        "quantize: out has scaling {} and {} amax; expected tensor_current and "
        "the amax of x",
        Name(args.out.scaling), args.out.amax == nullptr ? "no" : "an");
  }
  if (!WantsCodes(args.out)) return WriteScaleInv(exec, args, true);
  RecordQuantize(exec, "quantize_with_amax_cuda", args, 1);
  return QuantizeTensorCurrent(exec, args);
}

Status QuantizeCuda(const Exec& exec, const QuantizeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateQuantize(args));
  switch (args.out.scaling) {
    case QuantScaling::kTensor:
      return RunTensor(exec, args);
    case QuantScaling::kTensorCurrent:
      return RunTensorCurrent(exec, args);
    case QuantScaling::kBlock1x128:
    case QuantScaling::kBlock128x128:
      return RunBlocks(exec, args);
    case QuantScaling::kMx1x32:
    case QuantScaling::kMx32x32:
    case QuantScaling::kNvfp4_1x16:
    case QuantScaling::kNvfp4_16x16:
      break;
  }
  return Unsupported(
      "quantize: out's scaling is {}, which needs compute capability 10.0; the CUDA backend writes "
      "tensor, tensor_current, block_1x128 and block_128x128",
      Name(args.out.scaling));
}

}  // namespace te
