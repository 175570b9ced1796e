// Activations that write the FP8 copies of their result, both orientations from one tile: 64 tokens
// of 128 columns a block (gated backward: of each half), 4 tokens a thread.
//
// Bytes of an element of y, and microseconds of 2048 tokens of 11008 at 4.3 TB/s:
//   forward   gated 4 + 2 (31.5), plain 2 + 2; a dense y 2 more
//   backward  gated 6 + 4 (52.4), plain 4 + 2; a dense dx 4 (plain 2) and y 2 more
#include "te_kernels/activation/activation_float8.h"
#include "te_kernels/activation/activation_functions.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/cuda/launch.cuh"

namespace te::activation {
namespace {

using cuda::Float8Output;
using cuda::Float8Tile;

constexpr int kN = 8;  // elements of a vector
constexpr int kRowThreads = Float8Tile::kColumns / kN;
constexpr int kPassRows = Float8Tile::kThreads / kRowThreads;
constexpr int kPasses = Float8Tile::kRows / kPassRows;

// Row-major tensors of `width` elements a row (x and dx of gated kinds: twice that) at row strides;
// y and dx may be null.
struct ForwardTensors {
  int64_t rows, width;
  const bfloat16* x;
  int64_t x_stride;
  bfloat16* y;
  int64_t y_stride;
};
struct BackwardTensors {
  int64_t rows, width;
  const bfloat16* x;
  int64_t x_stride;
  const bfloat16* dy;
  int64_t dy_stride;
  bfloat16* dx;
  int64_t dx_stride;
  bfloat16* y;
  int64_t y_stride;
};

// Where a thread's vectors stand in the block's tile.
struct Place {
  int64_t first_row = int64_t{blockIdx.y} * Float8Tile::kRows;
  int64_t first_column = int64_t{blockIdx.x} * Float8Tile::kColumns;
  int row = threadIdx.x / kRowThreads;  // of the first pass
  int column = threadIdx.x % kRowThreads * kN;

  __device__ int64_t Row(int pass) const { return first_row + row + pass * kPassRows; }
  __device__ int64_t Column() const { return first_column + column; }
};

__device__ inline uint4 LoadOnce(const bfloat16* p) {
  return __ldcs(reinterpret_cast<const uint4*>(p));
}

template <typename F>
__global__ void __launch_bounds__(Float8Tile::kThreads, 4)
    Float8ForwardKernel(F f, ForwardTensors t, Float8Output out) {
  cuda::StartAfterEarlierKernels();
  __shared__ Float8Tile tile;
  __shared__ float shared[Float8Tile::kThreads / cuda::kWarp];
  const Place at;
  uint4 gates[kPasses] = {}, linears[kPasses] = {};
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    if (at.Row(k) >= t.rows || at.Column() >= t.width) continue;
    const bfloat16* x = t.x + at.Row(k) * t.x_stride + at.Column();
    gates[k] = LoadOnce(x);
    if constexpr (F::kGated) linears[k] = LoadOnce(x + t.width);
  }
  cuda::Float8Encoder encoder(out);
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    if (at.Row(k) >= t.rows || at.Column() >= t.width) continue;
    float gate[kN], linear[kN], y[kN];
    cuda::Unpack<bfloat16>(gates[k], gate);
    cuda::Unpack<bfloat16>(linears[k], linear);
#pragma unroll
    for (int e = 0; e < kN; ++e) {
      float d_gate, d_linear;
      f.Apply(gate[e], linear[e], &y[e], &d_gate, &d_linear);
    }
    uint4 dense;
    const uint2 codes = encoder.Encode(y, &dense);
    if (t.y != nullptr) cuda::StoreVector(t.y + at.Row(k) * t.y_stride + at.Column(), dense);
    if (out.rowwise != nullptr)
      *reinterpret_cast<uint2*>(out.rowwise + at.Row(k) * t.width + at.Column()) = codes;
    tile.Put(at.row + k * kPassRows, at.column, codes);
  }
  __syncthreads();
  if (out.columnwise != nullptr) tile.StoreColumns(out, at.first_row, at.first_column);
  encoder.Finish<Float8Tile::kThreads>(out, shared);
}

// Blocks of a multiprocessor: 80 registers a thread, 128 where the function has parameters, too.
template <typename F>
inline constexpr int kBackwardBlocks = std::is_empty_v<F> ? 3 : 2;

// Plain kinds: dx may be dy.
template <typename F>
__global__ void __launch_bounds__(Float8Tile::kThreads, kBackwardBlocks<F>)
    Float8BackwardKernel(F f, BackwardTensors t, Float8Output out) {
  cuda::StartAfterEarlierKernels();
  constexpr int kHalves = F::kGated ? 2 : 1;
  __shared__ Float8Tile tiles[kHalves];
  __shared__ float shared[Float8Tile::kThreads / cuda::kWarp];
  const Place at;
  uint4 gates[kPasses] = {}, linears[kPasses] = {}, gradients[kPasses] = {};
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    if (at.Row(k) >= t.rows || at.Column() >= t.width) continue;
    const bfloat16* x = t.x + at.Row(k) * t.x_stride + at.Column();
    gates[k] = LoadOnce(x);
    if constexpr (F::kGated) linears[k] = LoadOnce(x + t.width);
    gradients[k] = LoadOnce(t.dy + at.Row(k) * t.dy_stride + at.Column());
  }
  cuda::Float8Encoder encoder(out);
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    if (at.Row(k) >= t.rows || at.Column() >= t.width) continue;
    float gate[kN], linear[kN], gradient[kN], y[kN], dx[2][kN];
    cuda::Unpack<bfloat16>(gates[k], gate);
    cuda::Unpack<bfloat16>(linears[k], linear);
    cuda::Unpack<bfloat16>(gradients[k], gradient);
#pragma unroll
    for (int e = 0; e < kN; ++e) {
      f.Apply(gate[e], linear[e], &y[e], &dx[0][e], &dx[1][e]);
      dx[0][e] *= gradient[e];
      if constexpr (F::kGated) dx[1][e] *= gradient[e];
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int64_t column = half * t.width + at.Column();
      uint4 dense;
      const uint2 codes = encoder.Encode(dx[half], &dense);
      if (t.dx != nullptr) cuda::StoreVector(t.dx + at.Row(k) * t.dx_stride + column, dense);
      if (out.rowwise != nullptr)
        *reinterpret_cast<uint2*>(out.rowwise + at.Row(k) * out.columns + column) = codes;
      tiles[half].Put(at.row + k * kPassRows, at.column, codes);
    }
    if constexpr (F::kGated) {
      if (t.y != nullptr)
        cuda::StoreVector(t.y + at.Row(k) * t.y_stride + at.Column(), cuda::RoundToBfloat16(y));
    }
  }
  __syncthreads();
  if (out.columnwise != nullptr) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      // The tile of a half ends where the half ends.
      Float8Output part = out;
      part.columns = (half + 1) * t.width;
      tiles[half].StoreColumns(part, at.first_row, half * t.width + at.first_column);
    }
  }
  encoder.Finish<Float8Tile::kThreads>(out, shared);
}

bool Vectors(const ConstTensorView& t) {
  return !t.defined() || cuda::Aligned<kN>(t.as<bfloat16>(), t.stride(0));
}

constexpr int64_t kMostRows = int64_t{65535} * Float8Tile::kRows;

dim3 Grid(int64_t rows, int64_t width) {
  const auto blocks = [](int64_t n, int64_t of) {
    return static_cast<unsigned int>((n + of - 1) / of);
  };
  return dim3(blocks(width, Float8Tile::kColumns), blocks(rows, Float8Tile::kRows));
}

int64_t Bytes(const TensorView& optional) {
  return optional.defined() ? static_cast<int64_t>(optional.bytes()) : 0;
}

}  // namespace

bool FusesForward(const ActivationForwardArgs& args) {
  const int64_t rows = args.x.dim(0), width = args.x.dim(1) / (IsGated(args.kind) ? 2 : 1);
  return args.x.dtype() == DType::kBFloat16 && rows <= kMostRows &&
         cuda::FusesFloat8(args.y.quant, rows, width) && Vectors(args.x) && Vectors(args.y.dense);
}

bool FusesBackward(const ActivationBackwardArgs& args) {
  const int64_t rows = args.dy.dim(0), width = args.dy.dim(1);
  return args.x.dtype() == DType::kBFloat16 && rows <= kMostRows &&
         width % cuda::kFloat8Multiple == 0 &&
         cuda::FusesFloat8(args.dx.quant, rows, args.x.dim(1)) && Vectors(args.x) &&
         Vectors(args.dy) && Vectors(args.dx.dense) && Vectors(args.y);
}

Status ForwardFloat8Cuda(const Exec& exec, const ActivationForwardArgs& args) {
  const TensorView& y = args.y.dense;
  const int64_t rows = args.x.dim(0), width = args.x.dim(1) / (IsGated(args.kind) ? 2 : 1);
  const ForwardTensors tensors = {.rows = rows,
                                  .width = width,
                                  .x = args.x.as<bfloat16>(),
                                  .x_stride = args.x.stride(0),
                                  .y = y.as<bfloat16>(),
                                  .y_stride = y.stride(0)};
  const Float8Output out = cuda::Float8OutputOf(args.y.quant, rows, width);
  Record(exec, "activation_forward", "activation_forward_fp8_cuda", args.x.dtype(),
         static_cast<int64_t>(args.x.bytes()) + Bytes(y) + cuda::Float8Bytes(args.y.quant));
  return ForKind(args.kind, args.params, [&](auto f) {
    cuda::LaunchOverlapping(exec, Float8ForwardKernel<decltype(f)>, Grid(rows, width),
                            dim3(Float8Tile::kThreads), {}, f, tensors, out);
    return cuda::LaunchStatus("activation_forward_fp8");
  });
}

Status BackwardFloat8Cuda(const Exec& exec, const ActivationBackwardArgs& args) {
  const TensorView& dx = args.dx.dense;
  const int64_t rows = args.dy.dim(0), width = args.dy.dim(1);
  const BackwardTensors tensors = {.rows = rows,
                                   .width = width,
                                   .x = args.x.as<bfloat16>(),
                                   .x_stride = args.x.stride(0),
                                   .dy = args.dy.as<bfloat16>(),
                                   .dy_stride = args.dy.stride(0),
                                   .dx = dx.as<bfloat16>(),
                                   .dx_stride = dx.stride(0),
                                   .y = args.y.as<bfloat16>(),
                                   .y_stride = args.y.stride(0)};
  const Float8Output out = cuda::Float8OutputOf(args.dx.quant, rows, args.x.dim(1));
  Record(exec, "activation_backward", "activation_backward_fp8_cuda", args.x.dtype(),
         static_cast<int64_t>(args.x.bytes() + args.dy.bytes()) + Bytes(dx) + Bytes(args.y) +
             cuda::Float8Bytes(args.dx.quant));
  return ForKind(args.kind, args.params, [&](auto f) {
    cuda::LaunchOverlapping(exec, Float8BackwardKernel<decltype(f)>, Grid(rows, width),
                            dim3(Float8Tile::kThreads), {}, f, tensors, out);
    return cuda::LaunchStatus("activation_backward_fp8");
  });
}

}  // namespace te::activation
