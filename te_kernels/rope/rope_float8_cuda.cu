// RoPE that writes the FP8 copies of its result, as the matrix [B S, n d]: the backward pass over a
// packed QKV gradient, and around FP8 attention the forward pass over the QKV product (codes alone,
// not transposed) and the backward pass over the gradient's codes. A block takes 64 tokens and goes
// through some tiles of 128 columns, so that each token's cosines and sines are read once for many
// heads and stay in registers: a tile alone would read twice its own bytes of them.
//
// Bytes of an element: 2 or, of codes, 1, and 1 a copy, a dense y 2 more. Both copies from
// bfloat16, 2048 tokens of 96 heads of 128 (Llama 2 7B): 101 MB, 23.4 us at 4.3 TB/s, and 48 heads
// (Llama 3 8B) 11.7 us.
#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/rope/rope.cuh"
#include "te_kernels/rope/rope_float8.h"
#include "te_kernels/rope/rope_sink.h"

namespace te::rope {
namespace {

using cuda::Float8Output;
using cuda::Float8Tile;

constexpr int kN = 8;  // pairs of a thread: two vectors of 16 bytes
constexpr int kRowThreads = Float8Tile::kColumns / (2 * kN);
constexpr int kPassRows = Float8Tile::kThreads / kRowThreads;
constexpr int kPasses = Float8Tile::kRows / kPassRows;
// Of a multiprocessor: up to 128 registers a thread, of which cosines, sines and the next tile take
// 48. 32 KiB of reads in flight, twice what half of 4.3 TB/s asks for at a latency of 1 us.
constexpr int kBlocks = 2;

struct Tensors {
  const void* x;  // bfloat16 or codes
  int64_t x_stride;
  const float* x_scale_inv;  // of codes
  bfloat16* y;               // may be null
  int64_t y_stride;
  const float* cos;
  int64_t cos_stride;
  const float* sin;
  int64_t sin_stride;
  const int32_t* positions;    // may be null
  int64_t position_stride[2];  // PositionStrides
  int64_t start_position, table_rows;
  unsigned int inner;   // S; with sequence_first B
  int head_dim;         // divides 128
  int rotated_columns;  // heads behind are copied
  int tiles;            // of 128 columns that a block goes through
  float sign;
};

// Where a thread's two vectors stand in a head: as halves (r, r + d / 2) or interleaved, in a row.
template <bool kInterleaved>
struct Place {
  __device__ explicit Place(int head_dim) {
    const int threads = head_dim / (2 * kN);  // of a head
    const int head = threadIdx.x % kRowThreads / threads, i = threadIdx.x % kRowThreads % threads;
    pair = i * kN;
    first = head * head_dim + (kInterleaved ? 2 : 1) * pair;
    second = first + (kInterleaved ? kN : head_dim / 2);
  }
  int row = threadIdx.x / kRowThreads;  // of the first pass
  int pair, first, second;              // columns of the tile
};

// Eight elements as they lie in memory, bfloat16 (kNone) or codes, and as numbers.
template <QuantFormat kFormat>
class Source {
 public:
  static constexpr bool kCodes = kFormat != QuantFormat::kNone;
  using Element = std::conditional_t<kCodes, uint8_t, bfloat16>;
  using Vector = std::conditional_t<kCodes, uint2, uint4>;

  __device__ explicit Source(const Tensors& t) {
    if constexpr (kCodes) scale_inv_ = __ldg(t.x_scale_inv);
  }
  __device__ void Values(const Vector& vector, float (&out)[kN]) const {
    if constexpr (kCodes) {
      cuda::Float8sToFloats<kFormat>(vector, out);
#pragma unroll
      for (float& value : out) value = __fmul_rn(value, scale_inv_);
      cuda::Unpack<bfloat16>(cuda::RoundToBfloat16(out), out);
    } else {
      cuda::Unpack<bfloat16>(vector, out);
    }
  }

 private:
  float scale_inv_ = 1;
};

// In place.
template <bool kInterleaved>
__device__ void Rotate(const float (&c)[kN], const float (&s)[kN], float (&first)[kN],
                       float (&second)[kN]) {
  const auto rotate = [](float& u, float& v, float cosine, float sine) {
    const float rotated = RotatedFirst(u, v, cosine, sine);
    v = RotatedSecond(u, v, cosine, sine);
    u = rotated;
  };
  if constexpr (kInterleaved) {
#pragma unroll
    for (int e = 0; e < kN / 2; ++e) {
      rotate(first[2 * e], first[2 * e + 1], c[e], s[e]);
      rotate(second[2 * e], second[2 * e + 1], c[kN / 2 + e], s[kN / 2 + e]);
    }
  } else {
#pragma unroll
    for (int e = 0; e < kN; ++e) rotate(first[e], second[e], c[e], s[e]);
  }
}

// y may be x: a thread reads what it writes before it writes, and no other reads it.
template <bool kInterleaved, QuantFormat kFrom>
__global__ void __launch_bounds__(Float8Tile::kThreads, kBlocks)
    RopeFloat8Kernel(Tensors t, Float8Output out) {
  cuda::StartAfterEarlierKernels();
  using Element = typename Source<kFrom>::Element;
  using Vector = typename Source<kFrom>::Vector;
  __shared__ Float8Tile tiles[2];
  __shared__ float shared[Float8Tile::kThreads / cuda::kWarp];
  const Place<kInterleaved> at(t.head_dim);
  const int64_t first_row = int64_t{blockIdx.y} * Float8Tile::kRows;
  const int begin = static_cast<int>(blockIdx.x) * t.tiles * Float8Tile::kColumns;
  const int end = min(begin + t.tiles * Float8Tile::kColumns, static_cast<int>(out.columns));
  const int passes = static_cast<int>(
      min(int64_t{kPasses}, (out.rows - first_row - at.row + kPassRows - 1) / kPassRows));

  // Of each pass: a row's two vectors, and where they stand, from tile to tile.
  struct {
    Vector first, second;
    const Element* from;
    bfloat16* dense;
    uint8_t* codes;
  } rows[kPasses] = {};
  const int apart = at.second - at.first;
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    const int64_t row = first_row + at.row + k * kPassRows;
    const int column = begin + at.first;
    rows[k].from = static_cast<const Element*>(t.x) + row * t.x_stride + column;
    rows[k].dense = t.y == nullptr ? nullptr : t.y + row * t.y_stride + column;
    rows[k].codes = out.rowwise == nullptr ? nullptr : out.rowwise + row * out.columns + column;
  }
  const auto read = [&](int column) {
#pragma unroll
    for (int k = 0; k < kPasses; ++k) {
      // Both vectors are in one head, and the columns end with a head.
      if (k < passes && column + at.first < end) {
        rows[k].first = __ldcs(reinterpret_cast<const Vector*>(rows[k].from));
        rows[k].second = __ldcs(reinterpret_cast<const Vector*>(rows[k].from + apart));
      }
      rows[k].from += Float8Tile::kColumns;
    }
  };
  read(begin);

  float c[kPasses][kN], s[kPasses][kN];
#pragma unroll
  for (int k = 0; k < kPasses; ++k) {
    const int64_t row = first_row + at.row + k * kPassRows;
    const unsigned int token = static_cast<unsigned int>(min(row, out.rows - 1));
    const int64_t position =
        token / t.inner * t.position_stride[0] + token % t.inner * t.position_stride[1];
    const int64_t p = t.positions == nullptr ? t.start_position + position : t.positions[position];
    const bool inside = p >= 0 && p < t.table_rows;
#pragma unroll
    for (int e = 0; e < kN; e += 4) {
      float4 cosines = make_float4(NAN, NAN, NAN, NAN), sines = cosines;
      if (inside) {
        cosines = __ldg(reinterpret_cast<const float4*>(t.cos + p * t.cos_stride + at.pair + e));
        sines = __ldg(reinterpret_cast<const float4*>(t.sin + p * t.sin_stride + at.pair + e));
      }
      c[k][e] = cosines.x, c[k][e + 1] = cosines.y, c[k][e + 2] = cosines.z,
      c[k][e + 3] = cosines.w;
      s[k][e] = sines.x * t.sign, s[k][e + 1] = sines.y * t.sign, s[k][e + 2] = sines.z * t.sign,
      s[k][e + 3] = sines.w * t.sign;
    }
  }

  const Source<kFrom> source(t);
  cuda::Float8Encoder encoder(out);
  int buffer = 0;
  for (int column = begin; column < end; column += Float8Tile::kColumns, buffer ^= 1) {
#pragma unroll
    for (int k = 0; k < kPasses; ++k) {
      if (k >= passes || column + at.first >= end) continue;
      float first[kN], second[kN];
      source.Values(rows[k].first, first);
      source.Values(rows[k].second, second);
      if (column + at.first < t.rotated_columns) Rotate<kInterleaved>(c[k], s[k], first, second);
      uint4 dense[2];
      const uint2 codes[2] = {encoder.Encode(first, &dense[0]), encoder.Encode(second, &dense[1])};
      if (t.y != nullptr) {
        cuda::StoreVector(rows[k].dense, dense[0]);
        cuda::StoreVector(rows[k].dense + apart, dense[1]);
        rows[k].dense += Float8Tile::kColumns;
      }
      if (out.rowwise != nullptr) {
        *reinterpret_cast<uint2*>(rows[k].codes) = codes[0];
        *reinterpret_cast<uint2*>(rows[k].codes + apart) = codes[1];
        rows[k].codes += Float8Tile::kColumns;
      }
      if (out.columnwise == nullptr) continue;
      tiles[buffer].Put(at.row + k * kPassRows, at.first, codes[0]);
      tiles[buffer].Put(at.row + k * kPassRows, at.second, codes[1]);
    }
    read(column + Float8Tile::kColumns);
    if (out.columnwise == nullptr) continue;
    // One barrier a tile: whoever writes this buffer again has passed the next tile's.
    __syncthreads();
    tiles[buffer].StoreColumns(out, first_row, column);
  }
  encoder.Finish<Float8Tile::kThreads>(out, shared);
}

constexpr int64_t kMostRows = int64_t{65535} * Float8Tile::kRows;
constexpr int64_t kMostColumns = int64_t{1} << 30;

template <typename T>
bool Fits(const ConstTensorView& t) {
  return !t.defined() || (IsMatrix(t) && cuda::Aligned<kN>(t.as<T>(), AsMatrix(t).stride(0)));
}

template <bool kInterleaved, QuantFormat kFrom>
Status Launch(const Exec& exec, const Tensors& tensors, const Float8Output& out) {
  const dim3 grid(
      static_cast<unsigned int>((out.columns + int64_t{tensors.tiles} * Float8Tile::kColumns - 1) /
                                (int64_t{tensors.tiles} * Float8Tile::kColumns)),
      static_cast<unsigned int>((out.rows + Float8Tile::kRows - 1) / Float8Tile::kRows));
  cuda::LaunchOverlapping(exec, RopeFloat8Kernel<kInterleaved, kFrom>, grid,
                          dim3(Float8Tile::kThreads), {}, tensors, out);
  return cuda::LaunchStatus("rope_fp8");
}
template <bool kInterleaved>
Status Launch(const Exec& exec, QuantFormat from, const Tensors& tensors, const Float8Output& out) {
  if (from == cuda::kE4M3) return Launch<kInterleaved, cuda::kE4M3>(exec, tensors, out);
  if (from == cuda::kE5M2) return Launch<kInterleaved, cuda::kE5M2>(exec, tensors, out);
  return Launch<kInterleaved, QuantFormat::kNone>(exec, tensors, out);
}

}  // namespace

bool FusesFloat8(const RopeArgs& args) {
  const int64_t rows = args.x.dim(0) * args.x.dim(1), head_dim = args.x.dim(3);
  return args.dtype() == DType::kBFloat16 && rows <= kMostRows && head_dim >= 2 * kN &&
         args.x.dim(2) * head_dim <= kMostColumns && Float8Tile::kColumns % head_dim == 0 &&
         2 * args.cos.dim(1) == head_dim &&
         cuda::FusesFloat8(args.y.quant, rows, args.x.dim(2) * head_dim) &&
         (args.codes() ? Fits<uint8_t>(args.x) : Fits<bfloat16>(args.x)) &&
         Fits<bfloat16>(args.y.dense) &&
         cuda::Aligned<4>(args.cos.as<float>(), args.cos.stride(0)) &&
         cuda::Aligned<4>(args.sin.as<float>(), args.sin.stride(0));
}

Status RopeFloat8Cuda(const Exec& exec, const RopeArgs& args) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const ConstTensorView x = AsMatrix(args.x);
  const int64_t rows = x.dim(0), columns = x.dim(1);
  Tensors tensors = {.x = x.data(),
                     .x_stride = x.stride(0),
                     .x_scale_inv = args.x_scale_inv,
                     .y = args.y.dense.as<bfloat16>(),
                     .y_stride = args.y.dense.defined() ? AsMatrix(args.y.dense).stride(0) : 0,
                     .cos = args.cos.as<float>(),
                     .cos_stride = args.cos.stride(0),
                     .sin = args.sin.as<float>(),
                     .sin_stride = args.sin.stride(0),
                     .positions = args.positions.as<int32_t>(),
                     .start_position = args.start_position,
                     .table_rows = args.cos.dim(0),
                     .inner = static_cast<unsigned int>(args.x.dim(1)),
                     .head_dim = static_cast<int>(args.x.dim(3)),
                     .rotated_columns = static_cast<int>(RotatedHeads(args) * args.x.dim(3)),
                     .sign = args.inverse ? -1.0f : 1.0f};
  for (int axis = 0; axis < 2; ++axis)
    tensors.position_stride[axis] = PositionStrides(args)[static_cast<size_t>(axis)];
  // All blocks at once, with as many tiles for one as for another.
  const auto divide = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t row_tiles = divide(rows, Float8Tile::kRows);
  const int64_t column_tiles = divide(columns, Float8Tile::kColumns);
  const int64_t parts =
      std::clamp<int64_t>(kBlocks * state->num_sms() / row_tiles, 1, column_tiles);
  tensors.tiles = static_cast<int>(divide(column_tiles, parts));
  const Float8Output out = cuda::Float8OutputOf(args.y.quant, rows, columns);
  const size_t dense_bytes = args.y.dense.defined() ? args.y.dense.bytes() : 0;
  Record(exec, "rope", "rope_fp8_cuda", args.dtype(),
         static_cast<int64_t>(args.x.bytes() + dense_bytes) + cuda::Float8Bytes(args.y.quant));
  return args.interleaved ? Launch<true>(exec, args.x_format, tensors, out)
                          : Launch<false>(exec, args.x_format, tensors, out);
}

}  // namespace te::rope
