// adamw.h with quantized_param in one pass: every tensor is read once and written once, and the new
// param leaves the registers as bfloat16, as E4M3 and, through shared memory, as transposed E4M3.
// With bfloat16 param, grad and moments 16 bytes an element: 6.74 G parameters (Llama 2 7B) take
// 27.9 ms at 3.87 TB/s.
//
// A warp owns a tile of 64 x 64 elements and never waits for another warp. Eight lanes read a row:
// 128 bytes of each bfloat16 tensor, 64 of codes. The transposed tile goes out in pieces of 64
// bytes; the warp below, in the same block, writes the other half of their cache lines.
#include <cuda_fp8.h>

#include "te_kernels/adamw/adamw_tiles.h"
#include "te_kernels/adamw/adamw_update.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::adamw_cuda {
namespace {

constexpr int kTile = 64;      // rows and columns of a warp
constexpr int kWarpsDown = 2;  // of a block
constexpr int kWarpsAcross = 2;
constexpr int kThreads = kWarpsDown * kWarpsAcross * cuda::kWarp;
constexpr int kWidth = 8;  // elements of a lane in a row: 16 bytes of bfloat16, two Philox blocks
constexpr int kLanesOfRow = kTile / kWidth;
constexpr int kRowsAtATime = 4;  // a lane's, one below the other: a word of the transposed tile
constexpr int kRounds = kTile * kLanesOfRow / (cuda::kWarp * kRowsAtATime);

// The transposed tile in shared memory: 16 words (64 rows) for each column. Four words between
// groups of eight columns keep both the words that a warp writes (eight groups, four words of each)
// and the vectors that it reads (two columns at a time) in 32 different banks.
constexpr int kColumnWords = kTile / 4;
constexpr int kGroupWords = kWidth * kColumnWords + 4;
constexpr int kTileWords = kLanesOfRow * kGroupWords;

struct Tensors {
  bfloat16* param;
  const void* grad;
  void* m;
  void* v;
  float* master;
};

struct Copies {
  const float* scale;
  float* scale_inv;
  float* amax;          // may be null, as may be
  uint8_t* rowwise;     // either of
  uint8_t* columnwise;  // these
  int64_t rows, columns;
  int64_t blocks_across;
};

// kWidth elements as they lie in memory, unpacked and packed again by halves: few of them are in
// registers as floats at a time.
template <typename T>
struct Vectors {
  __device__ void Read(const T* p) {
#pragma unroll
    for (int k = 0; k < kWords; k += 4) {
      const uint4 vector =
          *reinterpret_cast<const uint4*>(reinterpret_cast<const uint32_t*>(p) + k);
      words[k] = vector.x;
      words[k + 1] = vector.y;
      words[k + 2] = vector.z;
      words[k + 3] = vector.w;
    }
  }
  __device__ void Write(T* p) const {
#pragma unroll
    for (int k = 0; k < kWords; k += 4) {
      *reinterpret_cast<uint4*>(reinterpret_cast<uint32_t*>(p) + k) =
          make_uint4(words[k], words[k + 1], words[k + 2], words[k + 3]);
    }
  }
  // Elements 4 half .. 4 half + 3.
  __device__ void Get(int half, float (&out)[4]) const {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t word = words[(4 * half + e) * static_cast<int>(sizeof(T)) / 4];
      out[e] = __uint_as_float(sizeof(T) == 4 ? word
                               : e % 2 == 0   ? word << 16
                                              : word & 0xffff0000u);
    }
  }
  __device__ void Set(int half, const float (&in)[4]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int e = 0; e < 4; ++e) words[4 * half + e] = __float_as_uint(in[e]);
    } else {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(in[2 * k], in[2 * k + 1]);
        words[2 * half + k] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }

  static constexpr int kWords = kWidth * static_cast<int>(sizeof(T)) / 4;
  uint32_t words[kWords];
};

// quantize.h's cast of four values, the first in the lowest byte.
__device__ uint32_t Cast4(float a, float b, float c, float d) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

// Rows become columns: byte i of out[j] is byte j of row i.
__device__ void Transpose(uint32_t row0, uint32_t row1, uint32_t row2, uint32_t row3,
                          uint32_t (&out)[4]) {
  const uint32_t low01 = __byte_perm(row0, row1, 0x5140), high01 = __byte_perm(row0, row1, 0x7362);
  const uint32_t low23 = __byte_perm(row2, row3, 0x5140), high23 = __byte_perm(row2, row3, 0x7362);
  out[0] = __byte_perm(low01, low23, 0x5410);
  out[1] = __byte_perm(low01, low23, 0x7632);
  out[2] = __byte_perm(high01, high23, 0x5410);
  out[3] = __byte_perm(high01, high23, 0x7632);
}

// The tile whose first element is (row0, column0). next(i, w): the new param of the kWidth elements
// from i (an index into the whole matrix) on; called for the lane's rows from top to bottom.
template <typename Next>
__device__ void WriteTile(const Copies& copies, int64_t row0, int64_t column0, uint32_t* shared,
                          Next next) {
  const int lane = threadIdx.x % cuda::kWarp;
  const int group = lane % kLanesOfRow, band = lane / kLanesOfRow;
  const float scale = *copies.scale;
  float amax = 0;
#pragma unroll 1
  for (int round = 0; round < kRounds; ++round) {
    const int word = 4 * round + band;  // rows 4 word .. 4 word + 3 of the tile
    uint32_t codes[kRowsAtATime][2];
#pragma unroll
    for (int r = 0; r < kRowsAtATime; ++r) {
      int64_t i = (row0 + kRowsAtATime * word + r) * copies.columns + column0 + kWidth * group;
      // Hides that the rows are related: one address is formed where it is used, instead of twenty
      // kept in registers.
      asm volatile("" : "+l"(i));
      next(i, [&](int half, const float(&w)[4]) {
        amax = fmaxf(fmaxf(fmaxf(amax, fabsf(w[0])), fabsf(w[1])), fmaxf(fabsf(w[2]), fabsf(w[3])));
        codes[r][half] = Cast4(w[0] * scale, w[1] * scale, w[2] * scale, w[3] * scale);
      });
      if (copies.rowwise != nullptr)
        *reinterpret_cast<uint2*>(copies.rowwise + i) = make_uint2(codes[r][0], codes[r][1]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t columns[4];
      Transpose(codes[0][h], codes[1][h], codes[2][h], codes[3][h], columns);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        shared[group * kGroupWords + (4 * h + k) * kColumnWords + word] = columns[k];
    }
  }
  if (copies.columnwise != nullptr) {
    __syncwarp();
    constexpr int kLanesOfColumn = kTile / 16;
    constexpr int kColumns = cuda::kWarp / kLanesOfColumn;  // at a time: a group
    static_assert(kColumns == kWidth);
    const int column = lane / kLanesOfColumn, part = lane % kLanesOfColumn;
#pragma unroll
    for (int k = 0; k < kTile / kColumns; ++k) {
      const uint4 rows = *reinterpret_cast<const uint4*>(shared + k * kGroupWords +
                                                         column * kColumnWords + 4 * part);
      uint8_t* out = copies.columnwise + (column0 + k * kColumns + column) * copies.rows + row0;
      *reinterpret_cast<uint4*>(out + 16 * part) = rows;
    }
  }
  if (copies.amax != nullptr) {
    amax = cuda::WarpMax(amax);
    // Bits of numbers that are not negative are ordered as the numbers are.
    if (lane == 0) atomicMax(reinterpret_cast<unsigned int*>(copies.amax), __float_as_uint(amax));
  }
}

// What one row of a lane needs: with bfloat16 tensors it is read while the row above is computed.
template <typename Grad, typename Moment, bool kMaster>
struct Inputs {
  using Weight = std::conditional_t<kMaster, float, bfloat16>;

  __device__ void Read(const Tensors& t, int64_t i) {
    weight.Read((kMaster ? reinterpret_cast<const Weight*>(t.master)
                         : reinterpret_cast<const Weight*>(t.param)) +
                i);
    grad.Read(static_cast<const Grad*>(t.grad) + i);
    m.Read(static_cast<const Moment*>(t.m) + i);
    v.Read(static_cast<const Moment*>(t.v) + i);
  }

  Vectors<Weight> weight;
  Vectors<Grad> grad;
  Vectors<Moment> m, v;
};

// Blocks an SM that leave the kernel its registers.
template <typename Grad, typename Moment, bool kMaster>
inline constexpr int kBlocks = kMaster || sizeof(Grad) + sizeof(Moment) > 4 ? 5 : 8;

template <typename Grad, typename Moment, bool kMaster, bool kStochastic>
__global__ void __launch_bounds__(kThreads, (kBlocks<Grad, Moment, kMaster>))
    AdamWTilesKernel(const Tensors tensors, const Copies copies, const Hyperparameters h) {
  __shared__ Constants constants;
  __shared__ alignas(16) uint32_t transposed[kWarpsDown * kWarpsAcross][kTileWords];
  if (threadIdx.x == 0) {
    constants = MakeConstants(h);
    if (blockIdx.x == 0) *copies.scale_inv = __fdiv_rn(1.0f, *copies.scale);
  }
  __syncthreads();
  const int warp = threadIdx.x / cuda::kWarp;
  const int64_t down = blockIdx.x / copies.blocks_across,
                across = blockIdx.x % copies.blocks_across;
  const int64_t row0 = (down * kWarpsDown + warp / kWarpsAcross) * kTile;
  const int64_t column0 = (across * kWarpsAcross + warp % kWarpsAcross) * kTile;
  if (row0 >= copies.rows || column0 >= copies.columns) return;
  if (h.scalars->skip != 0) {
    WriteTile(copies, row0, column0, transposed[warp], [&](int64_t i, const auto& quantize) {
      Vectors<bfloat16> param;
      param.Read(tensors.param + i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float w[4];
        param.Get(half, w);
        quantize(half, w);
      }
    });
    return;
  }
  const Constants c = constants;
  const RandomState random = Resolved(h.random);
  WriteTile(copies, row0, column0, transposed[warp], [&](int64_t i, const auto& quantize) {
    Inputs<Grad, Moment, kMaster> inputs;
    inputs.Read(tensors, i);
    Vectors<bfloat16> param;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float w[4], grad[4], m[4], v[4];
      inputs.weight.Get(half, w);
      inputs.grad.Get(half, grad);
      inputs.m.Get(half, m);
      inputs.v.Get(half, v);
      UpdateValues(c, grad, &m, &v, &w);
      if constexpr (kMaster) inputs.weight.Set(half, w);
      if constexpr (kStochastic) {
        RoundStochastically<bfloat16, Moment>(random, i + 4 * half, &w, &m, &v);
      }
      inputs.m.Set(half, m);
      inputs.v.Set(half, v);
      param.Set(half, w);
      param.Get(half, w);  // what is quantized is the rounded value
      quantize(half, w);
    }
    if constexpr (kMaster) inputs.weight.Write(tensors.master + i);
    param.Write(tensors.param + i);
    inputs.m.Write(static_cast<Moment*>(tensors.m) + i);
    inputs.v.Write(static_cast<Moment*>(tensors.v) + i);
  });
}

template <typename Grad, typename Moment, bool kMaster, bool kStochastic>
Status Run(const Exec& exec, const AdamWArgs& args) {
  const Tensors tensors = {.param = args.param.as<bfloat16>(),
                           .grad = args.grad.data(),
                           .m = args.m.data(),
                           .v = args.v.data(),
                           .master = args.master.as<float>()};
  const QuantSpec& quant = args.quantized_param;
  const auto blocks_of = [](int64_t extent, int tile) { return (extent + tile - 1) / tile; };
  const Copies copies = {.scale = quant.scale,
                         .scale_inv = quant.scale_inv,
                         .amax = quant.amax,
                         .rowwise = quant.rowwise_data.as<uint8_t>(),
                         .columnwise = quant.columnwise_data.as<uint8_t>(),
                         .rows = args.param.dim(0),
                         .columns = args.param.dim(1),
                         .blocks_across = blocks_of(args.param.dim(1), kWarpsAcross * kTile)};
  const int64_t blocks = copies.blocks_across * blocks_of(copies.rows, kWarpsDown * kTile);
  AdamWTilesKernel<Grad, Moment, kMaster, kStochastic>
      <<<static_cast<unsigned int>(blocks), kThreads, 0, cuda::StreamOf(exec)>>>(
          tensors, copies, HyperparametersOf(args));
  return cuda::LaunchStatus("adamw with quantized_param");
}

// The switches become template arguments one after the other.
template <typename Grad, typename Moment, bool kMaster>
Status ByRounding(const Exec& exec, const AdamWArgs& args) {
  return args.rounding == Rounding::kStochastic ? Run<Grad, Moment, kMaster, true>(exec, args)
                                                : Run<Grad, Moment, kMaster, false>(exec, args);
}
template <typename Grad, typename Moment>
Status ByMaster(const Exec& exec, const AdamWArgs& args) {
  return args.master.defined() ? ByRounding<Grad, Moment, true>(exec, args)
                               : ByRounding<Grad, Moment, false>(exec, args);
}
template <typename Grad>
Status ByMoment(const Exec& exec, const AdamWArgs& args) {
  return args.m.dtype() == DType::kFloat32 ? ByMaster<Grad, float>(exec, args)
                                           : ByMaster<Grad, bfloat16>(exec, args);
}

}  // namespace

bool TilesTake(const AdamWArgs& args) {
  const QuantSpec& quant = args.quantized_param;
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return quant.format == QuantFormat::kFloat8E4M3 && quant.scaling == QuantScaling::kTensor &&
         args.param.dtype() == DType::kBFloat16 && args.param.elements() != 0 &&
         args.param.dim(0) % kTile == 0 && args.param.dim(1) % kTile == 0 &&
         aligned(args.param.data()) && aligned(args.grad.data()) && aligned(args.m.data()) &&
         aligned(args.v.data()) && aligned(args.master.data()) &&
         aligned(quant.rowwise_data.data()) && aligned(quant.columnwise_data.data());
}

Status AdamWTiles(const Exec& exec, const AdamWArgs& args) {
  const auto bytes =
      args.grad.bytes() + 2 * args.m.bytes() + 2 * args.v.bytes() + args.param.bytes() +
      (args.master.defined() ? 2 * args.master.bytes() : args.param.bytes()) +
      args.quantized_param.rowwise_data.bytes() + args.quantized_param.columnwise_data.bytes();
  Record(exec, "adamw", "adamw_fp8_cuda", args.param.dtype(), static_cast<int64_t>(bytes));
  return args.grad.dtype() == DType::kFloat32 ? ByMoment<float>(exec, args)
                                              : ByMoment<bfloat16>(exec, args);
}

}  // namespace te::adamw_cuda
