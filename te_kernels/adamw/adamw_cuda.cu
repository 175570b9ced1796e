// adamw.h's arithmetic on CUDA: one pass, every tensor read once and written once. With bfloat16
// param, grad and moments 14 bytes an element: 202 M parameters (a layer of Llama 2 7B) take 0.73
// ms at the 3.87 TB/s that this form of kernel reaches on an H200.
//
// The codes of quantized_param are a pass of their own, but for what adamw_tiles_cuda.cu takes;
// with current scaling the update makes the amax, so that this pass is the only one.
#include <algorithm>
#include <type_traits>

#include "te_kernels/adamw/adamw_tiles.h"
#include "te_kernels/adamw/adamw_update.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/quantize/quantize_cuda.h"

namespace te {
namespace {

using adamw_cuda::Constants;
using adamw_cuda::Hyperparameters;

constexpr int kThreads = 512;
// Two fit an SM by registers; as many again smooth the end of the grid.
constexpr int kBlocksPerSm = 4;
// Elements of a thread at a time: 16 bytes of bfloat16, two Philox blocks.
constexpr int kWidth = 8;

struct Tensors {
  void* param;
  const void* grad;
  void* m;
  void* v;
  float* master;
  int64_t elements;
  int64_t vectors;  // of kWidth elements, from the start; 0 when a pointer is not aligned
  float* amax;      // may be null: raised to that of param's new value
};

template <typename T>
__device__ void LoadWide(const T* p, float (&out)[kWidth]) {
  constexpr int kN = cuda::kLanes<T>;
#pragma unroll
  for (int part = 0; part < kWidth / kN; ++part) {
    float values[kN];
    cuda::Load<kN>(p + part * kN, values);
#pragma unroll
    for (int e = 0; e < kN; ++e) out[part * kN + e] = values[e];
  }
}
__device__ void LoadWide(const float* p, float (&out)[1]) { out[0] = *p; }
__device__ void LoadWide(const bfloat16* p, float (&out)[1]) { out[0] = cuda::ToFloat(*p); }

template <typename T, int N>
__device__ void StoreWide(T* p, const float (&in)[N]) {
  constexpr int kN = N < cuda::kLanes<T> ? N : cuda::kLanes<T>;
#pragma unroll
  for (int part = 0; part < N / kN; ++part) {
    float values[kN];
#pragma unroll
    for (int e = 0; e < kN; ++e) values[e] = in[part * kN + e];
    cuda::Store<kN>(p + part * kN, values);
  }
}

// The larger of `most` and |w|; NaN is not counted.
template <int N>
__device__ float MaxAbs(const float (&w)[N], float most) {
#pragma unroll
  for (int e = 0; e < N; ++e) most = fmaxf(most, fabsf(w[e]));
  return most;
}

// Elements [i, i + N), N = 1 or kWidth. i is a multiple of N. `most`: raised to the new weights'
// largest magnitude, before a rounding to nearest.
template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic, int N>
__device__ void Update(const Tensors& t, const Constants& c, const RandomState& random, int64_t i,
                       float* most) {
  Param* param = static_cast<Param*>(t.param) + i;
  Moment* m_out = static_cast<Moment*>(t.m) + i;
  Moment* v_out = static_cast<Moment*>(t.v) + i;
  float w[N], g[N], m[N], v[N];
  LoadWide(static_cast<const Grad*>(t.grad) + i, g);
  LoadWide(m_out, m);
  LoadWide(v_out, v);
  if constexpr (kMaster) {
    LoadWide(t.master + i, w);
  } else {
    LoadWide(param, w);
  }
  adamw_cuda::UpdateValues(c, g, &m, &v, &w);
  if constexpr (kMaster) StoreWide(t.master + i, w);
  if constexpr (kStochastic) adamw_cuda::RoundStochastically<Param, Moment>(random, i, &w, &m, &v);
  StoreWide(param, w);
  StoreWide(m_out, m);
  StoreWide(v_out, v);
  *most = MaxAbs(w, *most);
}

template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic>
__global__ void __launch_bounds__(kThreads, 2)
    AdamWKernel(const Tensors tensors, const Hyperparameters hyperparameters) {
  // Once a block: the powers of beta are some hundred instructions in double.
  __shared__ Constants shared;
  adamw_cuda::BeginUpdate(hyperparameters);
  const bool skip = hyperparameters.scalars->skip != 0;
  if (threadIdx.x == 0 && !skip) shared = adamw_cuda::MakeConstants(hyperparameters);
  const RandomState random =
      kStochastic ? adamw_cuda::Resolved(hyperparameters.random) : RandomState();
  __syncthreads();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  float most = 0;
  if (!skip) {
    const Constants c = shared;
    for (int64_t i = first; i < tensors.vectors; i += stride) {
      Update<Param, Grad, Moment, kMaster, kStochastic, kWidth>(tensors, c, random, i * kWidth,
                                                                &most);
    }
    for (int64_t i = tensors.vectors * kWidth + first; i < tensors.elements; i += stride)
      Update<Param, Grad, Moment, kMaster, kStochastic, 1>(tensors, c, random, i, &most);
  } else if (tensors.amax != nullptr) {
    for (int64_t i = first; i < tensors.elements; i += stride) {
      float w[1];
      LoadWide(static_cast<const Param*>(tensors.param) + i, w);
      most = MaxAbs(w, most);
    }
  }
  if (tensors.amax != nullptr) {
    __shared__ float of_warps[kThreads / cuda::kWarp];
    most = cuda::BlockMax<kThreads>(most, of_warps);
    // Rounding keeps the order of magnitudes: the largest one's rounding is the largest.
    if (threadIdx.x == 0) {
      const float rounded = cuda::ToFloat(cuda::FromFloat<Param>(most));
      atomicMax(reinterpret_cast<int*>(tensors.amax), __float_as_int(rounded));
    }
  }
  adamw_cuda::EndUpdate(hyperparameters);
}

template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic>
Status Run(const Exec& exec, const AdamWArgs& args, float* amax) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const auto aligned = [](const auto* p) {
    return cuda::Aligned<cuda::kLanes<std::remove_cvref_t<decltype(*p)>>>(p, 0);
  };
  const bool vectors = aligned(args.param.as<Param>()) && aligned(args.grad.as<Grad>()) &&
                       aligned(args.m.as<Moment>()) && aligned(args.v.as<Moment>()) &&
                       (!kMaster || aligned(args.master.as<float>()));
  const int64_t n = args.param.elements();
  const Tensors tensors = {.param = args.param.data(),
                           .grad = args.grad.data(),
                           .m = args.m.data(),
                           .v = args.v.data(),
                           .master = kMaster ? args.master.as<float>() : nullptr,
                           .elements = n,
                           .vectors = vectors ? n / kWidth : 0,
                           .amax = amax};
  const int64_t needed = (n + kWidth * kThreads - 1) / (kWidth * kThreads);
  const int64_t blocks = std::min<int64_t>(needed, int64_t{kBlocksPerSm} * state->num_sms());
  cuda::LaunchOverlapping(exec, AdamWKernel<Param, Grad, Moment, kMaster, kStochastic>,
                          dim3(static_cast<unsigned int>(blocks)), dim3(kThreads), {}, tensors,
                          adamw_cuda::HyperparametersOf(args));
  return cuda::LaunchStatus("adamw");
}

// The switches become template arguments one after the other.
template <typename Param, typename Grad, typename Moment, bool kMaster>
Status ByRounding(const Exec& exec, const AdamWArgs& args, float* amax) {
  constexpr bool kRounds = sizeof(Param) == 2 || sizeof(Moment) == 2;
  if constexpr (kRounds) {
    if (args.rounding == Rounding::kStochastic)
      return Run<Param, Grad, Moment, kMaster, true>(exec, args, amax);
  }
  return Run<Param, Grad, Moment, kMaster, false>(exec, args, amax);
}
template <typename Param, typename Grad, typename Moment>
Status ByMaster(const Exec& exec, const AdamWArgs& args, float* amax) {
  return args.master.defined() ? ByRounding<Param, Grad, Moment, true>(exec, args, amax)
                               : ByRounding<Param, Grad, Moment, false>(exec, args, amax);
}
template <typename Param, typename Grad>
Status ByMoment(const Exec& exec, const AdamWArgs& args, float* amax) {
  return args.m.dtype() == DType::kFloat32 ? ByMaster<Param, Grad, float>(exec, args, amax)
                                           : ByMaster<Param, Grad, bfloat16>(exec, args, amax);
}
template <typename Param>
Status ByGrad(const Exec& exec, const AdamWArgs& args, float* amax) {
  return args.grad.dtype() == DType::kFloat32 ? ByMoment<Param, float>(exec, args, amax)
                                              : ByMoment<Param, bfloat16>(exec, args, amax);
}

// `amax`: null, or zeroed; that of param's new value.
Status Dense(const Exec& exec, const AdamWArgs& args, float* amax = nullptr) {
  // Read grad, the moments and master or param; write the moments, param and master.
  const auto bytes = args.grad.bytes() + 2 * args.m.bytes() + 2 * args.v.bytes() +
                     args.param.bytes() +
                     (args.master.defined() ? 2 * args.master.bytes() : args.param.bytes());
  Record(exec, "adamw", "adamw_cuda", args.param.dtype(), static_cast<int64_t>(bytes));
  if (args.param.elements() == 0) return OkStatus();
  return args.param.dtype() == DType::kFloat32 ? ByGrad<float>(exec, args, amax)
                                               : ByGrad<bfloat16>(exec, args, amax);
}

// Scalings that QuantizeCuda may refuse, having written nothing.
bool NeedsNewerDevice(QuantScaling scaling) {
  return scaling != QuantScaling::kTensor && scaling != QuantScaling::kBlock1x128 &&
         scaling != QuantScaling::kBlock128x128;
}

// The scale follows from the amax, which the update makes: param is read once more, not twice.
Status DenseThenCurrentScaling(const Exec& exec, AdamWArgs args) {
  const ArenaScope scope(exec.scratch);
  QuantizeArgs quantize = {.x = args.param, .out = args.quantized_param};
  if (quantize.out.amax == nullptr) {
    TE_ASSIGN_OR_RETURN(const TensorView amax, exec.scratch->Allocate(DType::kFloat32, {1}));
    quantize.out.amax = amax.as<float>();
  }
  TE_RETURN_IF_ERROR(
      cuda::ToStatus(cudaMemsetAsync(quantize.out.amax, 0, sizeof(float), cuda::StreamOf(exec)),
                     "adamw: clearing amax"));
  args.follows_update = false;  // it follows the clearing
  TE_RETURN_IF_ERROR(Dense(exec, args, quantize.out.amax));
  return cuda::QuantizeWithAmax(exec, quantize);
}

}  // namespace

Status AdamWCuda(const Exec& exec, const AdamWArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAdamW(args));
  if (args.previous_scale_inv != nullptr) return adamw_cuda::AdamWFloat8(exec, args);
  const QuantSpec& quant = args.quantized_param;
  if (quant.format == QuantFormat::kNone) return Dense(exec, args);
  if (adamw_cuda::TilesTake(args)) return adamw_cuda::AdamWTiles(exec, args);
  if (quant.scaling == QuantScaling::kTensorCurrent) return DenseThenCurrentScaling(exec, args);
  const QuantizeArgs quantize = {.x = args.param, .out = quant};
  // A refusal must come before the update; where there is none, this copy is overwritten.
  if (NeedsNewerDevice(quant.scaling)) TE_RETURN_IF_ERROR(QuantizeCuda(exec, quantize));
  TE_RETURN_IF_ERROR(Dense(exec, args));
  return QuantizeCuda(exec, quantize);
}

}  // namespace te
