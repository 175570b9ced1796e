// FP8-only weights on the CPU (adamw.h): a block of codes becomes floats, which are updated as a
// float32 parameter is, and codes again.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "te_kernels/adamw/cpu_update.h"
#include "te_kernels/adamw/stochastic_float8.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/transpose/transpose.h"

namespace te::adamw {
namespace {

// Of what is not NaN.
float MaxAbs(int64_t count, const float* w) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::fmax(largest, std::fabs(w[i]));
  return largest;
}

// The order of the calls does not change the result.
void RaiseTo(float value, std::atomic<float>* largest) {
  float seen = largest->load();
  while (seen < value && !largest->compare_exchange_weak(seen, value)) {
  }
}

template <typename Grad, typename Moment>
void Run(const Exec& exec, const AdamWArgs& args) {
  const Constants constants = MakeConstants(args);
  const RandomState random = args.random.Resolved();
  const QuantSpec& quant = args.quantized_param;
  const float scale = *quant.scale, previous_scale_inv = *args.previous_scale_inv;
  const bool skip = args.scalars->skip != 0;
  const bool stochastic = args.rounding == Rounding::kStochastic;
  const int64_t n = quant.rowwise_data.elements();
  std::atomic<float> amax = 0;
  ParallelFor(exec, (n + kBlock - 1) / kBlock, 32, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t numbers[kBlock] = {};
    alignas(64) float w[kBlock];
    float largest = 0;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      const int64_t count = std::min(kBlock, n - first);
      uint8_t* codes = quant.rowwise_data.as<uint8_t>() + first;
      for (int64_t i = 0; i < count; ++i) w[i] = kFloat8E4M3Values[codes[i]] * previous_scale_inv;
      if (!skip) {
        const Grad* grad = args.grad.as<Grad>() + first;
        Moment* m = args.m.as<Moment>() + first;
        Moment* v = args.v.as<Moment>() + first;
        if (stochastic) PhiloxFill(random, first / 4, (count + 3) / 4, numbers);
        // Float32 moments are stored as they are: no numbers for them.
        if (sizeof(Moment) == 2 && stochastic) {
          UpdateStochastic<false>(constants, count, grad, w, m, v, nullptr, numbers);
        } else {
          UpdateNearest<false>(constants, count, grad, w, m, v, nullptr);
        }
        for (int64_t i = 0; i < count; ++i) {
          codes[i] = stochastic ? StochasticFloat8E4M3Bits(w[i] * scale, numbers[i] & 0xffffu)
                                : FloatToFloat8E4M3Bits(w[i] * scale);
        }
      }
      largest = std::max(largest, MaxAbs(count, w));
    }
    RaiseTo(largest, &amax);
  });
  if (quant.amax != nullptr) *quant.amax = std::fmax(*quant.amax, amax.load());
  *quant.scale_inv = skip ? previous_scale_inv : 1 / scale;
}

template <typename Grad>
void ByMoment(const Exec& exec, const AdamWArgs& args) {
  const bool wide = args.m.dtype() == DType::kFloat32;
  wide ? Run<Grad, float>(exec, args) : Run<Grad, bfloat16>(exec, args);
}

}  // namespace

Status UpdateFloat8(const Exec& exec, const AdamWArgs& args) {
  const bool wide = args.grad.dtype() == DType::kFloat32;
  wide ? ByMoment<float>(exec, args) : ByMoment<bfloat16>(exec, args);
  const QuantSpec& quant = args.quantized_param;
  if (!quant.columnwise_data.defined()) return OkStatus();
  return TransposeCpu(exec, {.x = quant.rowwise_data, .y = quant.columnwise_data});
}

}  // namespace te::adamw
