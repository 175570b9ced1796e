#include "Eigen/Core"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/multiply/multiply.h"

namespace te {
namespace {

constexpr int64_t kGrain = 1 << 15;

// out may be a or b: each element is read before it is written.

void Range(const float* a, const float* b, int64_t n, float* out) {
  using Values = Eigen::ArrayXf;
  Eigen::Map<Values>(out, n) = Eigen::Map<const Values>(a, n) * Eigen::Map<const Values>(b, n);
}

// Not Eigen, whose bfloat16 arithmetic converts element by element.
void Range(const bfloat16* a, const bfloat16* b, int64_t n, bfloat16* out) {
  simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
    const simd::Pair x = simd::StreamPair(a + i, count), y = simd::StreamPair(b + i, count);
    simd::StorePair({x.even * y.even, x.odd * y.odd}, out + i, count);
  });
}

template <typename T>
void Run(const Exec& exec, const MultiplyArgs& args) {
  ParallelFor(exec, args.a.elements(), kGrain, [&](int64_t begin, int64_t end) {
    Range(args.a.as<T>() + begin, args.b.as<T>() + begin, end - begin, args.out.as<T>() + begin);
  });
}

}  // namespace

Status MultiplyCpu(const Exec& exec, const MultiplyArgs& args) {
  TE_RETURN_IF_ERROR(ValidateMultiply(args));
  if (args.a.dtype() == DType::kFloat32) {
    Run<float>(exec, args);
  } else {
    Run<bfloat16>(exec, args);
  }
  return OkStatus();
}

}  // namespace te
