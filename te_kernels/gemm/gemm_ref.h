// The products of gemm.h, term by term.
#pragma once

#include <cstdint>
#include <vector>

namespace te::ref {

// a [m, k] b [k, n], row-major; transpose_a: a is stored [k, m]; transpose_b: b is stored [n, k].
template <typename Scalar>
std::vector<Scalar> MatMul(const std::vector<Scalar>& a, bool transpose_a,
                           const std::vector<Scalar>& b, bool transpose_b, int64_t m, int64_t n,
                           int64_t k) {
  std::vector<Scalar> d(m * n, Scalar(0));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p) {
        d[i * n + j] += (transpose_a ? a[p * m + i] : a[i * k + p]) *
                        (transpose_b ? b[j * k + p] : b[p * n + j]);
      }
    }
  }
  return d;
}

}  // namespace te::ref
