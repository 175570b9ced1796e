#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/random_fill/random_fill.h"

namespace te {
namespace {

constexpr int64_t kChunk = 1024;  // elements of one task: whole Philox blocks, whole pairs

template <typename T>
void FillNormal(const uint32_t* number, double mean, double deviation, int64_t count, T* out) {
  for (int64_t i = 0; i < count; i += 2) {
    const double u1 = (number[i] + 0.5) * 0x1p-32;
    const double u2 = (number[i + 1] + 0.5) * 0x1p-32;
    const double radius = deviation * std::sqrt(-2 * std::log(u1));
    const double angle = 2 * std::numbers::pi * u2;
    out[i] = static_cast<T>(static_cast<float>(mean + radius * std::cos(angle)));
    if (i + 1 < count)
      out[i + 1] = static_cast<T>(static_cast<float>(mean + radius * std::sin(angle)));
  }
}

// The largest number below x; x is finite.
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
void FillUniform(const uint32_t* number, float low, float high, int64_t count, T* out) {
  // What rounds up to `high`, which is not in the interval, becomes the number below it.
  const T largest = low < high ? Below(high, T()) : static_cast<T>(low);
  for (int64_t i = 0; i < count; ++i) {
    const double u = Philox::ToUniform(number[i]);
    const auto value = static_cast<T>(static_cast<float>(low + (double{high} - low) * u));
    out[i] = static_cast<float>(value) < high ? value : largest;
  }
}

template <typename T>
void Run(const Exec& exec, const RandomFillArgs& args) {
  const RandomState state = args.random.Resolved();
  const int64_t n = args.out.elements();
  T* out = args.out.as<T>();
  ParallelFor(exec, (n + kChunk - 1) / kChunk, 4, [&](int64_t begin, int64_t end) {
    uint32_t number[kChunk];
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kChunk;
      const int64_t count = std::min(kChunk, n - first);
      PhiloxFill(state, first / 4, (count + 3) / 4, number);
      if (args.distribution == RandomDistribution::kNormal) {
        FillNormal(number, args.a, args.b, count, out + first);
      } else {
        FillUniform(number, args.a, args.b, count, out + first);
      }
    }
  });
}

}  // namespace

Status RandomFillCpu(const Exec& exec, const RandomFillArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRandomFill(args));
  if (args.out.dtype() == DType::kFloat32) {
    Run<float>(exec, args);
  } else {
    Run<bfloat16>(exec, args);
  }
  return OkStatus();
}

}  // namespace te
