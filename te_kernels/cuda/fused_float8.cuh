// FP8 codes of a tensor with one scale known beforehand (QuantScaling::kTensor), written by the
// kernel that computes the tensor: rowwise as they arise, columnwise (transposed) through a tile in
// shared memory. The same bits as quantizing the dense bfloat16 result (te_kernels/quantize):
// value -> bfloat16 -> float32 -> times scale -> to nearest even, clipped.
#pragma once

#include "te_kernels/base/quant_spec.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/float8.cuh"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cuda {

// What kernels need of a QuantSpec for x [rows, columns]; what is null is not wanted.
struct Float8Output {
  const float* scale;
  float* scale_inv;
  float* amax;
  uint8_t* rowwise;
  uint8_t* columnwise;
  int64_t rows, columns;
  bool e5m2;
};

// Vectors of 8 codes rowwise and of 8 or 16 columnwise.
inline constexpr int64_t kFloat8Multiple = 16;

// Whether kernels that write through Float8Output can write these copies of x [rows, columns]. What
// they cannot, and what is wrong, goes to Quantize, which says so.
inline bool FusesFloat8(const QuantSpec& quant, int64_t rows, int64_t columns) {
  const bool format =
      quant.format == QuantFormat::kFloat8E4M3 || quant.format == QuantFormat::kFloat8E5M2;
  const bool options = quant.power_of_2_scales || quant.amax_epsilon != 0 ||
                       quant.stochastic_rounding || quant.random_hadamard;
  return quant.scaling == QuantScaling::kTensor && format && !options && quant.scale != nullptr &&
         (quant.rowwise_data.defined() || quant.columnwise_data.defined()) && rows > 0 &&
         columns > 0 && rows % kFloat8Multiple == 0 && columns % kFloat8Multiple == 0 &&
         Aligned<kFloat8Multiple>(quant.rowwise_data.as<uint8_t>(), 0) &&
         Aligned<kFloat8Multiple>(quant.columnwise_data.as<uint8_t>(), 0);
}

inline Float8Output Float8OutputOf(const QuantSpec& quant, int64_t rows, int64_t columns) {
  return {.scale = quant.scale,
          .scale_inv = quant.scale_inv,
          .amax = quant.amax,
          .rowwise = quant.rowwise_data.as<uint8_t>(),
          .columnwise = quant.columnwise_data.as<uint8_t>(),
          .rows = rows,
          .columns = columns,
          .e5m2 = quant.format == QuantFormat::kFloat8E5M2};
}

// Bytes that must be written.
inline int64_t Float8Bytes(const QuantSpec& quant) {
  return static_cast<int64_t>(
      (quant.rowwise_data.defined() ? quant.rowwise_data.bytes() : 0) +
      (quant.columnwise_data.defined() ? quant.columnwise_data.bytes() : 0));
}

__device__ inline uint4 RoundToBfloat16(const float (&values)[8]) {
  Elements<bfloat16, 8> rounded;
#pragma unroll
  for (int e = 0; e < 8; ++e) rounded.at[e] = FromFloat<bfloat16>(values[e]);
  return std::bit_cast<uint4>(rounded);
}
// In one access: the compiler splits assignments of what it has put together itself.
__device__ inline void StoreVector(bfloat16* p, const uint4& vector) {
  __stwb(reinterpret_cast<uint4*>(p), vector);
}

// One thread's part: makes codes and remembers the largest magnitude.
class Float8Encoder {
 public:
  __device__ explicit Float8Encoder(const Float8Output& out)
      : scale_(__ldg(out.scale)), e5m2_(out.e5m2) {}

  // `dense`: the 8 values as bfloat16.
  __device__ uint2 Encode(const float (&values)[8], uint4* dense) {
    *dense = RoundToBfloat16(values);
    float scaled[8];
    Unpack<bfloat16>(*dense, scaled);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      amax_ = fmaxf(amax_, fabsf(scaled[e]));  // a NaN does not count
      scaled[e] = __fmul_rn(scaled[e], scale_);
    }
    // One branch for all threads of a kernel: half the kernels to build.
    return e5m2_ ? Cast<kE5M2>(scaled) : Cast<kE4M3>(scaled);
  }

  // Once, by all threads of a block, after the last Encode: what belongs to the whole tensor.
  // `shared`: kThreads / 32 elements that nobody else uses.
  template <int kThreads>
  __device__ void Finish(const Float8Output& out, float* shared) const {
    const bool first_block = blockIdx.x == 0 && blockIdx.y == 0;
    if (first_block && threadIdx.x == 0 && out.scale_inv != nullptr)
      *out.scale_inv = __fdiv_rn(1.0f, scale_);
    if (out.amax == nullptr) return;
    const float amax = BlockMax<kThreads>(amax_, shared);
    // Of floats that are not negative, the bits are in the same order: any order gives one result.
    if (threadIdx.x == 0) atomicMax(reinterpret_cast<int*>(out.amax), __float_as_int(amax));
  }

 private:
  template <QuantFormat kFormat>
  __device__ static uint2 Cast(const float (&v)[8]) {
    return make_uint2(CastFour<kFormat>(v[0], v[1], v[2], v[3]),
                      CastFour<kFormat>(v[4], v[5], v[6], v[7]));
  }

  float scale_;
  bool e5m2_;
  float amax_ = 0;
};

// Bytes b of words[0..3] become word b.
__device__ inline void TransposeBytes(unsigned int (&words)[4]) {
  const unsigned int low01 = __byte_perm(words[0], words[1], 0x5140);
  const unsigned int low23 = __byte_perm(words[2], words[3], 0x5140);
  const unsigned int high01 = __byte_perm(words[0], words[1], 0x7362);
  const unsigned int high23 = __byte_perm(words[2], words[3], 0x7362);
  words[0] = __byte_perm(low01, low23, 0x5410);
  words[1] = __byte_perm(low01, low23, 0x7632);
  words[2] = __byte_perm(high01, high23, 0x5410);
  words[3] = __byte_perm(high01, high23, 0x7632);
}

// kRows (8 or 16) rows of 4 codes, `stride` bytes apart in shared memory, become 4 rows of kRows
// codes, `out_stride` apart.
template <int kRows>
__device__ inline void StoreTransposed(const uint8_t* codes, int stride, uint8_t* out,
                                       int64_t out_stride) {
  unsigned int columns[4][kRows / 4];
#pragma unroll
  for (int q = 0; q < kRows / 4; ++q) {
    unsigned int words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      words[i] = *reinterpret_cast<const unsigned int*>(codes + (4 * q + i) * stride);
    TransposeBytes(words);
#pragma unroll
    for (int i = 0; i < 4; ++i) columns[i][q] = words[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kRows == 16) {
      *reinterpret_cast<uint4*>(out + i * out_stride) =
          make_uint4(columns[i][0], columns[i][1], columns[i][2], columns[i][3]);
    } else {
      static_assert(kRows == 8);
      *reinterpret_cast<uint2*>(out + i * out_stride) = make_uint2(columns[i][0], columns[i][1]);
    }
  }
}

// The tile of elementwise kernels, in shared memory: 64 rows of 128 codes. 16 bytes behind each 8
// rows, so that the reads of StoreColumns hit every bank once.
struct Float8Tile {
  static constexpr int kRows = 64;
  static constexpr int kColumns = 128;
  static constexpr int kThreads = 256;

  __device__ void Put(int row, int column, const uint2& codes) {
    *reinterpret_cast<uint2*>(&bytes[At(row, column)]) = codes;
  }
  // By all kThreads threads, between barriers: eight lanes write 64 bytes of a column.
  __device__ void StoreColumns(const Float8Output& out, int64_t first_row,
                               int64_t first_column) const {
    const int group = threadIdx.x % 8 * 8, word = threadIdx.x / 8 * 4;
    const int64_t row = first_row + group, column = first_column + word;
    if (row >= out.rows || column >= out.columns) return;
    StoreTransposed<8>(&bytes[At(group, word)], kColumns, out.columnwise + column * out.rows + row,
                       out.rows);
  }

  __device__ static int At(int row, int column) { return row * kColumns + row / 8 * 16 + column; }
  alignas(16) uint8_t bytes[kRows * kColumns + kRows / 8 * 16];
};

}  // namespace te::cuda
