// FP8-only weights on CUDA (adamw.h). With bfloat16 grad and moments 12 bytes an element, 13 with
// the transposed codes: 6.74 G parameters take 20.9 and 22.6 ms at 3.87 TB/s.
//
// Whole tiles as in adamw_tiles_cuda.cu; other shapes element by element, then a transposition.
#include <algorithm>

#include "te_kernels/adamw/adamw_tiles.cuh"
#include "te_kernels/adamw/adamw_tiles.h"
#include "te_kernels/adamw/adamw_update.cuh"
#include "te_kernels/adamw/stochastic_float8.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/transpose/transpose.h"

namespace te::adamw_cuda {
namespace {

// The codes are Copies::rowwise.
struct Tensors {
  const float* previous_scale_inv;
  const void* grad;
  void* m;
  void* v;
};

// What a lane reads for one of its rows.
template <typename Grad, typename Moment>
struct Inputs {
  uint2 codes;
  Vectors<Grad> grad;
  Vectors<Moment> m, v;
};

// The weights that `codes` stand for. (A NaN's sign is lost: no code and no amax shows it.)
__device__ void Decode(const uint2& codes, float scale_inv, float (&w)[2][4]) {
  float values[kWidth];
  cuda::Float8sToFloats<cuda::kE4M3>(codes, values);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) w[e / 4][e % 4] = values[e] * scale_inv;
}

// adamw::StochasticFloat8E4M3Bits of four weights, the first in the lowest byte. 2^-120 times as
// large, a float has its code's exponent bits and, where codes are subnormal, is so itself: twenty
// bits lie below the code's, whatever the size. The cast then clips.
__device__ uint32_t CastStochastically(const float (&w)[4], float scale,
                                       const uint32_t (&numbers)[4]) {
  float cast[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float small = w[e] * scale * 0x1p-120f;
    const uint32_t sum = BitsToRound<20>(small) + ((numbers[e] << 4 & 0xffff0u) | 8u);
    cast[e] = __uint_as_float(sum & 0xfff00000u) * 0x1p120f;
  }
  return cuda::CastFour<cuda::kE4M3>(cast[0], cast[1], cast[2], cast[3]);
}

// What blocks do first: the step's constants, once a block, and the scale that goes with the codes.
__device__ void Prepare(const Tensors& t, const Copies& copies, const Hyperparameters& h,
                        Constants* constants) {
  if (threadIdx.x == 0) {
    *constants = MakeConstants(h);
    if (blockIdx.x == 0) {
      *copies.scale_inv =
          h.scalars->skip != 0 ? *t.previous_scale_inv : __fdiv_rn(1.0f, *copies.scale);
    }
  }
  __syncthreads();
}

// A block's warps, and blocks an SM, that leave the kernel its registers: nothing spills.
template <typename Grad, typename Moment>
struct Launch {
  static constexpr bool kHeavy = sizeof(Grad) + sizeof(Moment) > 4;
  static constexpr int kWarps = 8;
  static constexpr int kBlocks = kHeavy ? 2 : 3;
  static constexpr int kThreads = kWarps * cuda::kWarp;
};

template <typename Grad, typename Moment, bool kStochastic>
__global__ void __launch_bounds__((Launch<Grad, Moment>::kThreads), (Launch<Grad, Moment>::kBlocks))
    AdamWFloat8TilesKernel(const Tensors tensors, const Copies copies, const Hyperparameters h) {
  constexpr int kWarps = Launch<Grad, Moment>::kWarps;
  using Row = Inputs<Grad, Moment>;
  __shared__ Constants constants;
  __shared__ alignas(16) uint32_t tile[kTileWords];
  BeginUpdate(h);
  const Place at = PlaceOf(copies);
  const auto read = [&](int64_t i) {
    Row inputs;
    inputs.codes = *reinterpret_cast<const uint2*>(copies.rowwise + i);
    inputs.grad.Read(static_cast<const Grad*>(tensors.grad) + i);
    inputs.m.Read(static_cast<const Moment*>(tensors.m) + i);
    inputs.v.Read(static_cast<const Moment*>(tensors.v) + i);
    return inputs;
  };
  // Under way while the constants are made.
  Row first;
  if (at.inside) first = read(at.ElementOf(copies, at.warp, 0));
  const float previous_scale_inv = *tensors.previous_scale_inv, scale = *copies.scale;
  Prepare(tensors, copies, h, &constants);
  if (h.scalars->skip != 0) {
    WriteTile<kWarps>(copies, at, tile, first, read,
                      [previous_scale_inv](const Row& inputs, int64_t, const auto& emit) {
                        float w[2][4];
                        Decode(inputs.codes, previous_scale_inv, w);
                        emit(0, w[0], inputs.codes.x);
                        emit(1, w[1], inputs.codes.y);
                      });
    EndUpdate(h);
    return;
  }
  const Constants c = constants;
  const RandomState random = Resolved(h.random);
  WriteTile<kWarps>(copies, at, tile, first, read, [&](Row& inputs, int64_t i, const auto& emit) {
    float weights[2][4];
    Decode(inputs.codes, previous_scale_inv, weights);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float(&w)[4] = weights[half];
      float grad[4], m[4], v[4];
      inputs.grad.Get(half, grad);
      inputs.m.Get(half, m);
      inputs.v.Get(half, v);
      UpdateValues(c, grad, &m, &v, &w);
      if constexpr (kStochastic) {
        uint32_t numbers[4];
        RandomNumbers(random, i | 4 * half, numbers);  // i is a multiple of kWidth
        emit(half, w, CastStochastically(w, scale, numbers));
        inputs.m.SetStochastically(half, m, numbers, &RandomBits::m);
        inputs.v.SetStochastically(half, v, numbers, &RandomBits::v);
      } else {
        emit(half, w, CastScaled(w, scale));
        inputs.m.Set(half, m);
        inputs.v.Set(half, v);
      }
    }
    inputs.m.Write(static_cast<Moment*>(tensors.m) + i);
    inputs.v.Write(static_cast<Moment*>(tensors.v) + i);
  });
  EndUpdate(h);
}

constexpr int kElementThreads = 256;

template <typename Grad, typename Moment, bool kStochastic>
__global__ void __launch_bounds__(kElementThreads)
    AdamWFloat8ElementsKernel(const Tensors tensors, const Copies copies, const Hyperparameters h) {
  __shared__ Constants constants;
  Prepare(tensors, copies, h, &constants);
  const bool skip = h.scalars->skip != 0;
  const Constants c = constants;
  const float scale = *copies.scale, previous_scale_inv = *tensors.previous_scale_inv;
  const RandomState random = Resolved(h.random);
  float amax = 0;
  const int64_t elements = copies.rows * copies.columns;
  const int64_t stride = int64_t{gridDim.x} * kElementThreads;
  for (int64_t i = int64_t{blockIdx.x} * kElementThreads + threadIdx.x; i < elements; i += stride) {
    float w[1] = {cuda::Float8ToFloat<cuda::kE4M3>(copies.rowwise[i]) * previous_scale_inv};
    if (!skip) {
      Moment* m_out = static_cast<Moment*>(tensors.m) + i;
      Moment* v_out = static_cast<Moment*>(tensors.v) + i;
      const float grad[1] = {cuda::ToFloat(static_cast<const Grad*>(tensors.grad)[i])};
      float m[1] = {cuda::ToFloat(*m_out)}, v[1] = {cuda::ToFloat(*v_out)};
      UpdateValues(c, grad, &m, &v, &w);
      if constexpr (kStochastic) {
        uint32_t numbers[1];
        RandomNumbers(random, i, numbers);
        RoundByNumber<float, Moment>(numbers[0], w, m, v);
        copies.rowwise[i] = adamw::StochasticFloat8E4M3Bits(w[0] * scale, numbers[0] & 0xffffu);
      } else {
        copies.rowwise[i] = static_cast<uint8_t>(cuda::CastPair<cuda::kE4M3>(w[0] * scale, 0));
      }
      *m_out = cuda::FromFloat<Moment>(m[0]);
      *v_out = cuda::FromFloat<Moment>(v[0]);
    }
    amax = fmaxf(amax, fabsf(w[0]));
  }
  RaiseAmax(copies.amax, amax);
}

template <typename Grad, typename Moment, bool kStochastic>
Status Run(const Exec& exec, const AdamWArgs& args) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const cudaStream_t stream = cuda::StreamOf(exec);
  const QuantSpec& quant = args.quantized_param;
  const int64_t rows = quant.rowwise_data.dim(0), columns = quant.rowwise_data.dim(1);
  const Tensors tensors = {.previous_scale_inv = args.previous_scale_inv,
                           .grad = args.grad.data(),
                           .m = args.m.data(),
                           .v = args.v.data()};
  const Copies copies = CopiesOf(quant, rows, columns);
  if (FitTiles(rows, columns,
               {quant.rowwise_data.data(), quant.columnwise_data.data(), tensors.grad, tensors.m,
                tensors.v})) {
    cuda::LaunchOverlapping(exec, AdamWFloat8TilesKernel<Grad, Moment, kStochastic>,
                            dim3(Blocks(copies)), dim3(Launch<Grad, Moment>::kThreads), {}, tensors,
                            copies, HyperparametersOf(args));
    return cuda::LaunchStatus("adamw of FP8 weights");
  }
  // Even without elements: a block writes scale_inv.
  const int64_t blocks =
      std::clamp<int64_t>(BlocksOf(rows * columns, kElementThreads), 1, 8 * state->num_sms());
  AdamWFloat8ElementsKernel<Grad, Moment, kStochastic>
      <<<static_cast<unsigned int>(blocks), kElementThreads, 0, stream>>>(tensors, copies,
                                                                          HyperparametersOf(args));
  TE_RETURN_IF_ERROR(cuda::LaunchStatus("adamw of FP8 weights"));
  if (copies.columnwise == nullptr) return OkStatus();
  Exec part = exec;
  part.log = nullptr;  // adamw's record counts it
  return TransposeCuda(part, {.x = quant.rowwise_data, .y = quant.columnwise_data});
}

// The switches become template arguments one after the other.
template <typename Grad, typename Moment>
Status ByRounding(const Exec& exec, const AdamWArgs& args) {
  return args.rounding == Rounding::kStochastic ? Run<Grad, Moment, true>(exec, args)
                                                : Run<Grad, Moment, false>(exec, args);
}
template <typename Grad>
Status ByMoment(const Exec& exec, const AdamWArgs& args) {
  return args.m.dtype() == DType::kFloat32 ? ByRounding<Grad, float>(exec, args)
                                           : ByRounding<Grad, bfloat16>(exec, args);
}

}  // namespace

Status AdamWFloat8(const Exec& exec, const AdamWArgs& args) {
  const QuantSpec& quant = args.quantized_param;
  const auto bytes = args.grad.bytes() + 2 * args.m.bytes() + 2 * args.v.bytes() +
                     2 * quant.rowwise_data.bytes() + quant.columnwise_data.bytes();
  Record(exec, "adamw", "adamw_fp8_weights_cuda", DType::kFloat8E4M3, static_cast<int64_t>(bytes));
  return args.grad.dtype() == DType::kFloat32 ? ByMoment<float>(exec, args)
                                              : ByMoment<bfloat16>(exec, args);
}

}  // namespace te::adamw_cuda
