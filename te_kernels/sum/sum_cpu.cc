#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/sum/sum.h"

namespace te {
namespace {

constexpr int64_t kChunk = 4096;
constexpr int kLanes = 32;

double LoadDouble(const double* from) { return *from; }
double LoadDouble(const float* from) { return LoadFloat(from); }
double LoadDouble(const bfloat16* from) { return LoadFloat(from); }

double Pairwise(const double* x, int64_t n) {
  if (n <= 2) return n == 2 ? x[0] + x[1] : n == 1 ? x[0] : 0;
  return Pairwise(x, n / 2) + Pairwise(x + n / 2, n - n / 2);
}

// One chunk, in double, in lanes whose order of additions is written here: Eigen's reduction takes
// one that depends on the packets it is compiled for (and its bfloat16 converts one element at a
// time), and the sum's bits must depend on neither machine nor thread count. Products of two floats
// are exact in it.
template <bool kSquared, typename T>
double SumChunk(const T* x, int64_t n) {
  double lanes[kLanes] = {};
  const auto add = [](double& lane, const T* value) {
    const double v = LoadDouble(value);
    lane += kSquared ? v * v : v;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) add(lanes[lane], x + i + lane);
  }
  for (int lane = 0; i < n; ++i, ++lane) add(lanes[lane], x + i);
  return Pairwise(lanes, kLanes);
}

template <bool kSquared, typename T>
Status Run(const Exec& exec, const SumArgs& args) {
  const T* x = args.x.as<T>();
  const int64_t n = args.x.elements();
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(TensorView partial, exec.scratch->Allocate(DType::kFloat64, {chunks}));
  double* sums = partial.as<double>();
  ParallelFor(exec, chunks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      sums[c] = SumChunk<kSquared>(x + c * kChunk, std::min(kChunk, n - c * kChunk));
    }
  });
  *args.out = (args.accumulate ? *args.out : 0) + Pairwise(sums, chunks);
  return OkStatus();
}

}  // namespace

Status SumCpu(const Exec& exec, const SumArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSum(args));
  switch (args.x.dtype()) {
    case DType::kFloat64:
      return args.squared ? Run<true, double>(exec, args) : Run<false, double>(exec, args);
    case DType::kFloat32:
      return args.squared ? Run<true, float>(exec, args) : Run<false, float>(exec, args);
    default:
      return args.squared ? Run<true, bfloat16>(exec, args) : Run<false, bfloat16>(exec, args);
  }
}

}  // namespace te
