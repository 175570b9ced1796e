// adamw.h's arithmetic on CUDA: one pass, every tensor read once and written once. With bfloat16
// param, grad and moments 14 bytes an element: 202 M parameters (a layer of Llama 2 7B) take 0.69
// ms at the 4.11 TB/s that this kernel reaches on an H200 with a tensor of 117 M.
//
// The codes of quantized_param are a pass of their own, but for what adamw_tiles_cuda.cu takes;
// with current scaling the update makes the amax, so that this pass is the only one.
#include <algorithm>
#include <type_traits>

#include "te_kernels/adamw/adamw_tiles.h"
#include "te_kernels/adamw/adamw_update.cuh"
#include "te_kernels/adamw/adamw_vectors.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/quantize/quantize_cuda.h"

namespace te {
namespace {

using adamw_cuda::Constants;
using adamw_cuda::DenseInputs;
using adamw_cuda::DenseTensors;
using adamw_cuda::Hyperparameters;
using adamw_cuda::kWidth;

constexpr int kThreads = 512;
// By registers.
constexpr int kBlocksPerSm = 2;
// Vectors of a thread, kThreads apart (bench/notes.md, section 13). Rounding to nearest gains
// nothing from more than two; rounding stochastically does, and spills where values are wider.
template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic>
inline constexpr int kChunks =
    kStochastic && !kMaster && sizeof(Param) + sizeof(Grad) + sizeof(Moment) == 6 ? 4 : 2;

struct Extent {
  int64_t elements;
  int64_t vectors;  // of kWidth elements, from the start; 0 when a pointer is not aligned
};

// The larger of `most` and |w|; NaN is not counted.
template <int N>
__device__ float MaxAbs(const float (&w)[N], float most) {
#pragma unroll
  for (int e = 0; e < N; ++e) most = fmaxf(most, fabsf(w[e]));
  return most;
}

// DenseInputs's Read and Update of element i alone; the new param as it is stored.
template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic>
__device__ float UpdateElement(const DenseTensors& t, const Constants& c, const RandomState& random,
                               int64_t i) {
  Param* param = static_cast<Param*>(t.param) + i;
  Moment* m_out = static_cast<Moment*>(t.m) + i;
  Moment* v_out = static_cast<Moment*>(t.v) + i;
  const float grad[1] = {cuda::ToFloat(static_cast<const Grad*>(t.grad)[i])};
  float m[1] = {cuda::ToFloat(*m_out)}, v[1] = {cuda::ToFloat(*v_out)};
  float w[1] = {kMaster ? t.master[i] : cuda::ToFloat(*param)};
  adamw_cuda::UpdateValues(c, grad, &m, &v, &w);
  if constexpr (kMaster) t.master[i] = w[0];
  if constexpr (kStochastic) {
    uint32_t numbers[1];
    adamw_cuda::RandomNumbers(random, i, numbers);
    adamw_cuda::RoundByNumber<Param, Moment>(numbers[0], w, m, v);
  }
  *param = cuda::FromFloat<Param>(w[0]);
  *m_out = cuda::FromFloat<Moment>(m[0]);
  *v_out = cuda::FromFloat<Moment>(v[0]);
  return cuda::ToFloat(cuda::FromFloat<Param>(w[0]));
}

// `amax`: may be null; raised to that of param's new value.
template <typename Param, typename Grad, typename Moment, bool kMaster, bool kStochastic>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    AdamWKernel(const DenseTensors tensors, const Extent extent,
                const Hyperparameters hyperparameters, float* amax) {
  constexpr int kOwn = kChunks<Param, Grad, Moment, kMaster, kStochastic>;
  // Once a block: the powers of beta are some hundred instructions in double.
  __shared__ Constants shared;
  adamw_cuda::BeginUpdate(hyperparameters);
  const int64_t first_vector = int64_t{blockIdx.x} * (kOwn * kThreads) + threadIdx.x;
  // Under way while the constants are made.
  DenseInputs<Param, Grad, Moment, kMaster> inputs;
  if (first_vector < extent.vectors) inputs.Read(tensors, first_vector * kWidth);
  const bool skip = hyperparameters.scalars->skip != 0;
  if (threadIdx.x == 0) shared = adamw_cuda::MakeConstants(hyperparameters);
  __syncthreads();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  float most = 0;
  if (!skip) {
    const Constants c = shared;
    const RandomState random =
        kStochastic ? adamw_cuda::Resolved(hyperparameters.random) : RandomState();
#pragma unroll
    for (int chunk = 0; chunk < kOwn; ++chunk) {
      const int64_t vector = first_vector + chunk * kThreads;
      if (vector >= extent.vectors) break;
      if (chunk > 0) inputs.Read(tensors, vector * kWidth);
      inputs.template Update<kStochastic>(
          tensors, c, random, vector * kWidth,
          [&most](int, const float(&w)[4]) { most = MaxAbs(w, most); });
    }
    for (int64_t i = extent.vectors * kWidth + first; i < extent.elements; i += stride) {
      const float w[1] = {
          UpdateElement<Param, Grad, Moment, kMaster, kStochastic>(tensors, c, random, i)};
      most = MaxAbs(w, most);
    }
  } else if (amax != nullptr) {
    for (int64_t i = first; i < extent.elements; i += stride) {
      const float w[1] = {cuda::ToFloat(static_cast<const Param*>(tensors.param)[i])};
      most = MaxAbs(w, most);
    }
  }
  if (amax != nullptr) {
    __shared__ float of_warps[kThreads / cuda::kWarp];
    most = cuda::BlockMax<kThreads>(most, of_warps);
    if (threadIdx.x == 0) atomicMax(reinterpret_cast<int*>(amax), __float_as_int(most));
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
  const DenseTensors tensors = {.param = args.param.data(),
                                .grad = args.grad.data(),
                                .m = args.m.data(),
                                .v = args.v.data(),
                                .master = kMaster ? args.master.as<float>() : nullptr};
  const Extent extent = {.elements = n, .vectors = vectors ? n / kWidth : 0};
  const auto blocks_of = [n](int64_t elements) { return (n + elements - 1) / elements; };
  // Element by element, as many blocks as run at once and as many again: they smooth the end.
  constexpr int64_t kOfBlock =
      int64_t{kChunks<Param, Grad, Moment, kMaster, kStochastic>} * kThreads * kWidth;
  const int64_t blocks = vectors ? blocks_of(kOfBlock)
                                 : std::min<int64_t>(blocks_of(kThreads),
                                                     int64_t{2 * kBlocksPerSm} * state->num_sms());
  cuda::LaunchOverlapping(exec, AdamWKernel<Param, Grad, Moment, kMaster, kStochastic>,
                          dim3(static_cast<unsigned int>(blocks)), dim3(kThreads), {}, tensors,
                          extent, adamw_cuda::HyperparametersOf(args), amax);
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
  return scaling != QuantScaling::kTensor && scaling != QuantScaling::kTensorCurrent &&
         scaling != QuantScaling::kBlock1x128 && scaling != QuantScaling::kBlock128x128;
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
