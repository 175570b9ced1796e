#include <algorithm>
#include <bit>
#include <cmath>

#include "te_kernels/adamw/adamw.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"

namespace te {
namespace {

// Elements at a time: whole Philox blocks; what is converted stays in L1.
constexpr int64_t kBlock = 512;
constexpr uint32_t kSecondStream = 0x80000000u;  // of v's random bits (adamw.h)

struct Constants {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;        // lr / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

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

void Update(const Constants& c, int64_t n, const float* __restrict grad, float* __restrict w,
            float* __restrict m, float* __restrict v) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = c.grad_scale * grad[i];
    const float m_new = c.beta1 * m[i] + c.one_minus_beta1 * g;
    const float v_new = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(v_new) * c.root_correction + c.epsilon;
    m[i] = m_new;
    v[i] = v_new;
    w[i] = w[i] * c.decay - c.step_size * (m_new / denominator);
  }
}

void Widen(const bfloat16* from, int64_t n, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

void NarrowNearest(const float* from, int64_t n, bfloat16* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = bfloat16(from[i]);
}

// Adds 16 random bits below the last kept one and truncates: rounds up with the probability of the
// dropped fraction. `shift` picks the low (0) or high (16) half of each number.
void NarrowStochastic(const float* from, const uint32_t* random, int shift, int64_t n,
                      bfloat16* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(from[i]);
    const uint32_t rounded = (bits + ((random[i] >> shift) & 0xffffu)) >> 16;
    const uint32_t quiet_nan = (bits >> 16) | 0x40u;
    to[i].bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
  }
}

// A tensor's block as floats: in place, or in a buffer.
class Block {
 public:
  explicit Block(const TensorView& tensor)
      : wide_(tensor.dtype() == DType::kFloat32 ? tensor.as<float>() : nullptr),
        narrow_(wide_ == nullptr ? tensor.as<bfloat16>() : nullptr) {}

  float* Load(int64_t first, int64_t n) {
    if (wide_ != nullptr) return wide_ + first;
    if (narrow_ != nullptr) Widen(narrow_ + first, n, buffer_);
    return buffer_;
  }
  void Store(const float* from, int64_t first, int64_t n, const uint32_t* random, int shift) {
    if (narrow_ == nullptr) {
      if (from != wide_ + first) std::copy_n(from, n, wide_ + first);
    } else if (random != nullptr) {
      NarrowStochastic(from, random, shift, n, narrow_ + first);
    } else {
      NarrowNearest(from, n, narrow_ + first);
    }
  }

 private:
  float* wide_;
  bfloat16* narrow_;
  alignas(64) float buffer_[kBlock];
};

void UpdateRange(const AdamWArgs& args, const Constants& constants, const RandomState& random,
                 int64_t begin, int64_t end) {
  const bool has_master = args.master.defined();
  Block param(args.param), m(args.m), v(args.v), master(args.master);
  const float* wide_grad = args.grad.dtype() == DType::kFloat32 ? args.grad.as<float>() : nullptr;
  alignas(64) float grad_buffer[kBlock];
  alignas(64) uint32_t first_numbers[kBlock];
  alignas(64) uint32_t second_numbers[kBlock];
  const bool stochastic = args.rounding == Rounding::kStochastic;
  const bool narrow_moments = args.m.dtype() == DType::kBFloat16;
  const bool needs_first = stochastic && (narrow_moments || args.param.dtype() == DType::kBFloat16);
  const bool needs_second = stochastic && narrow_moments;
  RandomState second = random;
  second.stream += kSecondStream;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t n = std::min(kBlock, end - first);
    const float* grad = grad_buffer;
    if (wide_grad != nullptr) {
      grad = wide_grad + first;
    } else {
      Widen(args.grad.as<bfloat16>() + first, n, grad_buffer);
    }
    float* w = has_master ? master.Load(first, n) : param.Load(first, n);
    float* m_values = m.Load(first, n);
    float* v_values = v.Load(first, n);
    if (needs_first) PhiloxFill(random, first / 4, (n + 3) / 4, first_numbers);
    if (needs_second) PhiloxFill(second, first / 4, (n + 3) / 4, second_numbers);
    Update(constants, n, grad, w, m_values, v_values);
    param.Store(w, first, n, needs_first ? first_numbers : nullptr, 0);
    m.Store(m_values, first, n, needs_second ? first_numbers : nullptr, 16);
    v.Store(v_values, first, n, needs_second ? second_numbers : nullptr, 0);
  }
}

}  // namespace

Status AdamWCpu(const Exec& exec, const AdamWArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAdamW(args));
  if (args.scalars->skip != 0) return OkStatus();
  const Constants constants = MakeConstants(args);
  const RandomState random = args.random.Resolved();
  const int64_t n = args.param.elements();
  ParallelFor(exec, (n + kBlock - 1) / kBlock, 32, [&](int64_t begin, int64_t end) {
    UpdateRange(args, constants, random, begin * kBlock, std::min(n, end * kBlock));
  });
  return OkStatus();
}

}  // namespace te
