#include <algorithm>
#include <cmath>
#include <type_traits>

#include "te_kernels/adamw/adamw.h"
#include "te_kernels/adamw/stochastic_update.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/quantize/quantize.h"

namespace te {
namespace {

constexpr int64_t kBlock =
    1024;  // elements at a time: whole Philox blocks, their numbers stay in L1

using adamw::Constants;

Constants MakeConstants(const AdamWArgs& args) {
  const double lr = args.scalars->learning_rate;
  const auto t = static_cast<double>(args.scalars->step);
  Constants c;
  c.grad_scale = args.scalars->grad_scale;
  c.decay = static_cast<float>(1 - lr * args.weight_decay);
  c.beta1 = static_cast<float>(args.beta1);
  c.one_minus_beta1 = static_cast<float>(1 - args.beta1);
  c.beta2 = static_cast<float>(args.beta2);
  c.one_minus_beta2 = static_cast<float>(1 - args.beta2);
  c.step_size = static_cast<float>(lr / (1 - std::pow(args.beta1, t)));
  c.root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(args.beta2, t)));
  c.epsilon = static_cast<float>(args.epsilon);
  return c;
}

// One block.
template <bool kMaster, typename Param, typename Grad, typename Moment>
void UpdateBlock(const Constants& c, int64_t n, const Grad* __restrict grad,
                 Param* __restrict param, Moment* __restrict m, Moment* __restrict v,
                 float* __restrict master) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = c.grad_scale * LoadFloat(grad + i);
    const float m_new = c.beta1 * LoadFloat(m + i) + c.one_minus_beta1 * g;
    const float v_new = c.beta2 * LoadFloat(v + i) + c.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(v_new) * c.root_correction + c.epsilon;
    const float w_old = kMaster ? master[i] : LoadFloat(param + i);
    const float w = w_old * c.decay - c.step_size * (m_new / denominator);
    if constexpr (kMaster) master[i] = w;
    StoreRounded(w, param + i);
    StoreRounded(m_new, m + i);
    StoreRounded(v_new, v + i);
  }
}

template <bool kStochastic, bool kMaster, typename Param, typename Grad, typename Moment>
void Run(const Exec& exec, const AdamWArgs& args) {
  const Constants constants = MakeConstants(args);
  const RandomState random = args.random.Resolved();
  const int64_t n = args.param.elements();
  ParallelFor(exec, (n + kBlock - 1) / kBlock, 32, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t numbers[kBlock] = {};
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      const int64_t count = std::min(kBlock, n - first);
      const Grad* grad = args.grad.as<Grad>() + first;
      Param* param = args.param.as<Param>() + first;
      Moment* m = args.m.as<Moment>() + first;
      Moment* v = args.v.as<Moment>() + first;
      float* master = kMaster ? args.master.as<float>() + first : nullptr;
      if constexpr (kStochastic) {
        PhiloxFill(random, first / 4, (count + 3) / 4, numbers);
        adamw::UpdateStochastic<kMaster>(constants, count, grad, param, m, v, master, numbers);
      } else {
        UpdateBlock<kMaster>(constants, count, grad, param, m, v, master);
      }
    }
  });
}

// The switches become template arguments one after the other.
template <typename Param, typename Grad, typename Moment>
void ByMode(const Exec& exec, const AdamWArgs& args) {
  // Float32 stores are exact: without a bfloat16 one there is nothing to draw numbers for.
  constexpr bool kNarrow = std::is_same_v<Param, bfloat16> || std::is_same_v<Moment, bfloat16>;
  const bool stochastic = kNarrow && args.rounding == Rounding::kStochastic;
  const bool master = args.master.defined();
  if (stochastic && master) return Run<kNarrow, true, Param, Grad, Moment>(exec, args);
  if (stochastic) return Run<kNarrow, false, Param, Grad, Moment>(exec, args);
  if (master) return Run<false, true, Param, Grad, Moment>(exec, args);
  Run<false, false, Param, Grad, Moment>(exec, args);
}

template <typename Param, typename Grad>
void ByMoment(const Exec& exec, const AdamWArgs& args) {
  const bool wide = args.m.dtype() == DType::kFloat32;
  wide ? ByMode<Param, Grad, float>(exec, args) : ByMode<Param, Grad, bfloat16>(exec, args);
}

template <typename Param>
void ByGrad(const Exec& exec, const AdamWArgs& args) {
  const bool wide = args.grad.dtype() == DType::kFloat32;
  wide ? ByMoment<Param, float>(exec, args) : ByMoment<Param, bfloat16>(exec, args);
}

}  // namespace

Status AdamWCpu(const Exec& exec, const AdamWArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAdamW(args));
  if (args.scalars->skip == 0) {
    const bool wide = args.param.dtype() == DType::kFloat32;
    wide ? ByGrad<float>(exec, args) : ByGrad<bfloat16>(exec, args);
  }
  if (args.quantized_param.format == QuantFormat::kNone) return OkStatus();
  return QuantizeCpu(exec, {.x = args.param, .out = args.quantized_param});
}

}  // namespace te
