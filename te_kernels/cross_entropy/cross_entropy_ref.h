// Cross entropy of cross_entropy.h for one row; templated on the scalar, so that a complex step
// gives exact derivatives.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace te::ref {

inline double Real(double x) { return x; }
template <typename Scalar>
double Real(const Scalar& x) {
  return x.real();
}

template <typename Scalar>
Scalar CrossEntropy(const std::vector<Scalar>& x, int64_t label, double label_smoothing) {
  double most = Real(x[0]);
  for (const Scalar& v : x) most = std::max(most, Real(v));
  Scalar sum(0), mean(0);
  for (const Scalar& v : x) {
    sum += std::exp(v - most);
    mean += v / static_cast<double>(x.size());
  }
  return most + std::log(sum) - (1 - label_smoothing) * x[label] - label_smoothing * mean;
}

}  // namespace te::ref
