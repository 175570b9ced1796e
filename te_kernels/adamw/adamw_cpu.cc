#include <algorithm>
#include <type_traits>

#include "te_kernels/adamw/adamw.h"
#include "te_kernels/adamw/cpu_update.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/quantize/quantize.h"

namespace te {
namespace {

using adamw::kBlock;

template <bool kStochastic, bool kMaster, typename Param, typename Grad, typename Moment>
void Run(const Exec& exec, const AdamWArgs& args) {
  const adamw::Constants constants = adamw::MakeConstants(args);
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
        adamw::UpdateNearest<kMaster>(constants, count, grad, param, m, v, master);
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
  if (args.previous_scale_inv != nullptr) return adamw::UpdateFloat8(exec, args);
  if (args.scalars->skip == 0) {
    const bool wide = args.param.dtype() == DType::kFloat32;
    wide ? ByGrad<float>(exec, args) : ByGrad<bfloat16>(exec, args);
  }
  if (args.quantized_param.format == QuantFormat::kNone) return OkStatus();
  return QuantizeCpu(exec, {.x = args.param, .out = args.quantized_param});
}

}  // namespace te
