#include <cmath>
#include <limits>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/random_fill/random_fill.h"

namespace te {
namespace {

constexpr int kThreads = 256;

// Of two, four numbers each: double arithmetic, as on the CPU, because an initialization must not
// depend on the device.
__device__ void Normal(const std::array<uint32_t, 4>& number, double mean, double deviation,
                       float (&out)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const double u1 = (number[i] + 0.5) * 0x1p-32;
    const double u2 = (number[i + 1] + 0.5) * 0x1p-32;
    const double radius = deviation * sqrt(-2 * log(u1));
    double sine, cosine;
    sincospi(2 * u2, &sine, &cosine);
    out[i] = static_cast<float>(mean + radius * cosine);
    out[i + 1] = static_cast<float>(mean + radius * sine);
  }
}

template <typename T>
struct Uniform {
  float low, high;
  T largest;  // stands for what would round up to `high`

  __device__ T operator()(uint32_t number) const {
    const double u = Philox::ToUniform(number);
    const T value = cuda::FromFloat<T>(
        static_cast<float>(low + (static_cast<double>(high) - static_cast<double>(low)) * u));
    return cuda::ToFloat(value) < high ? value : largest;
  }
};

// A thread makes the four numbers of one Philox block.
template <typename T, bool kNormal>
__global__ void __launch_bounds__(kThreads)
    RandomFillKernel(RandomState random, double mean, double deviation, Uniform<T> uniform,
                     int64_t n, T* out) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t first = 4 * block;
  if (first >= n) return;
  const auto number = Philox::Block(random.Resolved(), static_cast<uint64_t>(block));
  T values[4];
  if constexpr (kNormal) {
    float normal[4];
    Normal(number, mean, deviation, normal);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = cuda::FromFloat<T>(normal[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = uniform(number[i]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (first + i < n) out[first + i] = values[i];
}

// The largest number of T below x, which is finite.
float Below(float x, float) { return std::nextafter(x, -std::numeric_limits<float>::infinity()); }
bfloat16 Below(float x, bfloat16) {
  bfloat16 value(x);
  if (static_cast<float>(value) < x) return value;
  if (static_cast<float>(value) == 0) {
    value.bits = 0x8001;
  } else {
    value.bits += value.bits & 0x8000 ? 1 : -1;
  }
  return value;
}

template <typename T>
Status Run(const Exec& exec, const RandomFillArgs& args) {
  const int64_t n = args.out.elements();
  if (n == 0) return OkStatus();
  const auto blocks = static_cast<unsigned int>((n + 4 * kThreads - 1) / (4 * kThreads));
  const bool normal = args.distribution == RandomDistribution::kNormal;
  Uniform<T> uniform = {args.a, args.b, T(args.a)};
  if (!normal && args.a < args.b) uniform.largest = Below(args.b, T());
  const auto kernel = normal ? RandomFillKernel<T, true> : RandomFillKernel<T, false>;
  kernel<<<blocks, kThreads, 0, cuda::StreamOf(exec)>>>(args.random, args.a, args.b, uniform, n,
                                                        args.out.as<T>());
  return cuda::LaunchStatus("random_fill");
}

}  // namespace

Status RandomFillCuda(const Exec& exec, const RandomFillArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRandomFill(args));
  Record(exec, "random_fill", "random_fill_cuda", args.out.dtype(),
         static_cast<int64_t>(args.out.bytes()));
  return args.out.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
