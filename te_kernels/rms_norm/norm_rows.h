// What RMSNorm and LayerNorm share on the CPU: gamma in float32, and the reduction over tokens of
// the parameter gradients.
#pragma once

#include <algorithm>
#include <cstdint>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"

namespace te::norm {

// Below this many elements a second thread costs more than it brings.
inline constexpr int64_t kElementsPerThread = 1 << 14;

inline int64_t RowGrain(int64_t hidden) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, hidden));
}

template <typename T>
void CopyToFloat(const T* from, int64_t n, float plus, float* to) {
  simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
    simd::Store(simd::Load(from + i, count) + plus, to + i, count);
  });
}

// A parameter as dense float32 in scratch, `plus` added (1 for a zero-centered gamma).
inline StatusOr<const float*> ParameterAsFloat(const Exec& exec, const ConstTensorView& parameter,
                                               float plus) {
  if (parameter.dtype() == DType::kFloat32 && plus == 0) return parameter.as<float>();
  const int64_t n = parameter.dim(0);
  TE_ASSIGN_OR_RETURN(TensorView out, exec.scratch->Allocate(DType::kFloat32, {n}));
  if (parameter.dtype() == DType::kFloat32) {
    CopyToFloat(parameter.as<float>(), n, plus, out.as<float>());
  } else {
    CopyToFloat(parameter.as<bfloat16>(), n, plus, out.as<float>());
  }
  return static_cast<const float*>(out.as<float>());
}

// Rows are summed into one partial per chunk, and the partials in order: the chunks depend on the
// number of rows alone, hence the same bits for any number of threads.
struct RowChunks {
  int64_t rows;
  int64_t count;

  explicit RowChunks(int64_t total_rows)
      : rows(std::max<int64_t>(16, (total_rows + 63) / 64)),
        count((total_rows + rows - 1) / rows) {}
};

template <typename T>
void AddPartials(const float* partials, int64_t count, int64_t stride, int64_t begin, int64_t end,
                 bool accumulate, T* gradient) {
  simd::ForEachVector(end - begin, [&](int64_t i, int64_t n) TE_SIMD_LAMBDA {
    simd::Floats sum = {};
    if (accumulate) sum = simd::Load(gradient + begin + i, n);
    simd::Floats added = {};
    for (int64_t c = 0; c < count; ++c) added += simd::Load(partials + c * stride + begin + i, n);
    simd::Store(sum + added, gradient + begin + i, n);
  });
}

// gradient[h] (+)= sum over chunks c of partials[c * stride + h].
inline void CombinePartials(const Exec& exec, const float* partials, int64_t count, int64_t stride,
                            bool accumulate, const TensorView& gradient) {
  const int64_t grain = std::max<int64_t>(16, kElementsPerThread / std::max<int64_t>(1, count));
  ParallelFor(exec, gradient.dim(0), grain, [&](int64_t begin, int64_t end) {
    if (gradient.dtype() == DType::kFloat32) {
      AddPartials(partials, count, stride, begin, end, accumulate, gradient.as<float>());
    } else {
      AddPartials(partials, count, stride, begin, end, accumulate, gradient.as<bfloat16>());
    }
  });
}

}  // namespace te::norm
