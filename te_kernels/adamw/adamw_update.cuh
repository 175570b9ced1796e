// adamw.h's arithmetic on CUDA, element by element: what its kernels share, so that whichever of
// them runs, a parameter gets the same bits.
#pragma once

#include <cstdint>

#include "te_kernels/adamw/adamw.h"
#include "te_kernels/cuda/launch.cuh"

namespace te::adamw_cuda {

struct Hyperparameters {
  double beta1, beta2, epsilon, weight_decay;
  const StepScalars* scalars;
  RandomState random;
  bool follows_update;
};

inline Hyperparameters HyperparametersOf(const AdamWArgs& args) {
  return {.beta1 = args.beta1,
          .beta2 = args.beta2,
          .epsilon = args.epsilon,
          .weight_decay = args.weight_decay,
          .scalars = args.scalars,
          .random = args.random,
          .follows_update = args.follows_update};
}

// First statement of a kernel that LaunchOverlapping launches, and, in EndUpdate, its last: as
// `follows_update` allows.
__device__ inline void BeginUpdate(const Hyperparameters& h) {
  if (h.follows_update) {
    cuda::StartBesideEarlierKernels();
  } else {
    cuda::StartAfterEarlierKernels();
  }
}
__device__ inline void EndUpdate(const Hyperparameters& h) {
  if (h.follows_update) cuda::EndAfterEarlierKernels();
}

struct Constants {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;        // lr / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

// base^exponent by squaring; its relative error, about exponent * 2^-53, is nothing in float32.
__device__ inline double Power(double base, int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= base;
    base *= base;
  }
  return result;
}

__device__ inline Constants MakeConstants(const Hyperparameters& h) {
  const double lr = h.scalars->learning_rate;
  const int64_t t = h.scalars->step;
  Constants c;
  c.grad_scale = h.scalars->grad_scale;
  c.decay = static_cast<float>(1 - lr * h.weight_decay);
  c.beta1 = static_cast<float>(h.beta1);
  c.one_minus_beta1 = static_cast<float>(1 - h.beta1);
  c.beta2 = static_cast<float>(h.beta2);
  c.one_minus_beta2 = static_cast<float>(1 - h.beta2);
  c.step_size = static_cast<float>(lr / (1 - Power(h.beta1, t)));
  c.root_correction = static_cast<float>(1 / sqrt(1 - Power(h.beta2, t)));
  c.epsilon = static_cast<float>(h.epsilon);
  return c;
}

// `random` with its device memory read.
__device__ inline RandomState Resolved(RandomState random) {
  if (random.step_offset != nullptr) random.offset += *random.step_offset;
  return random;
}

// Relative error 2^-23: one unit of the last place in a dozen roundings.
__device__ inline float FastSqrt(float x) {
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}

// The equations of adamw.h. Which products are fused is written out: the compiler could choose
// differently from kernel to kernel.
template <int N>
__device__ inline void UpdateValues(const Constants& c, const float (&grad)[N], float (*m)[N],
                                    float (*v)[N], float (*w)[N]) {
#pragma unroll
  for (int e = 0; e < N; ++e) {
    const float g = __fmul_rn(c.grad_scale, grad[e]);
    (*m)[e] = __fmaf_rn(c.one_minus_beta1, g, __fmul_rn(c.beta1, (*m)[e]));
    (*v)[e] = __fmaf_rn(__fmul_rn(c.one_minus_beta2, g), g, __fmul_rn(c.beta2, (*v)[e]));
    const float denominator = __fmaf_rn(FastSqrt((*v)[e]), c.root_correction, c.epsilon);
    // The quotient is within 2 units of the last place. The denominator is far below the 2^126 from
    // which this division gives 0.
    const float step = __fdividef((*m)[e], denominator);
    (*w)[e] = __fmaf_rn(-c.step_size, step, __fmul_rn((*w)[e], c.decay));
  }
}

// The bits of an arithmetic operation's result, so that a number of kBits bits can be added: NaN,
// 0x7fffffff whatever the operation, stays NaN.
template <int kBits>
__device__ inline uint32_t BitsToRound(float result) {
  constexpr int kLargest = 0x7fffffff - ((1 << kBits) - 1);
  return static_cast<uint32_t>(min(__float_as_int(result), kLargest));
}

// The upper half is `value` rounded stochastically to bfloat16; the lower one is left over.
__device__ inline uint32_t StochasticSum(float value, uint32_t random16) {
  return BitsToRound<16>(value) + random16;
}

// The same as a float; its lower half is zero, so that a store's rounding changes nothing.
__device__ inline float RoundStochastically(float value, uint32_t random16) {
  return __uint_as_float(StochasticSum(value, random16) & 0xffff0000u);
}

// What of an element's random number rounds its values (adamw.h).
struct RandomBits {
  uint32_t param, m, v;
};
__device__ inline RandomBits BitsOf(uint32_t number) {
  const uint32_t low = number & 0xffffu, high = number >> 16;
  return {.param = low, .m = high, .v = low ^ high};
}

// One element's values that are stored as bfloat16, by its random number.
template <typename Param, typename Moment>
__device__ inline void RoundByNumber(uint32_t number, float* w, float* m, float* v) {
  const RandomBits bits = BitsOf(number);
  if constexpr (sizeof(Param) == 2) *w = RoundStochastically(*w, bits.param);
  if constexpr (sizeof(Moment) == 2) {
    *m = RoundStochastically(*m, bits.m);
    *v = RoundStochastically(*v, bits.v);
  }
}

// The random numbers of elements [i, i + N), N = 1 or 4; i is a multiple of N. `random` is
// resolved.
template <int N>
__device__ inline void RandomNumbers(const RandomState& random, int64_t i, uint32_t (&out)[N]) {
  const uint64_t index = static_cast<uint64_t>(i);
  const auto numbers = Philox::Block(random, index / 4);
  if constexpr (N == 4) {
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = numbers[e];
  } else {
    const uint32_t lane = index % 4;
    out[0] = lane == 0 ? numbers[0] : lane == 1 ? numbers[1] : lane == 2 ? numbers[2] : numbers[3];
  }
}

}  // namespace te::adamw_cuda
