// RMSNorm, the obvious loops on one row, for any scalar: double, and std::complex<double> for the
// derivative.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

namespace te::ref {

// y[h] = x[h] g[h] / sqrt(mean(x^2) + epsilon); g already holds the 1 of a zero-centered gamma.
template <typename S>
std::vector<S> RmsNorm(const std::vector<S>& x, const std::vector<S>& g, double epsilon) {
  using std::sqrt;
  S square_sum = 0;
  for (const S& v : x) square_sum += v * v;
  const S rstd = 1.0 / sqrt(square_sum / static_cast<double>(x.size()) + epsilon);
  std::vector<S> y(x.size());
  for (size_t h = 0; h < x.size(); ++h) y[h] = x[h] * rstd * g[h];
  return y;
}

struct RmsNormGradients {
  std::vector<double> dx;
  std::vector<double> dgamma;  // this row's contribution
};

inline RmsNormGradients RmsNormBackward(const std::vector<double>& dy, const std::vector<double>& x,
                                        const std::vector<double>& g, double epsilon) {
  const auto n = static_cast<double>(x.size());
  double square_sum = 0, dot = 0;
  for (double v : x) square_sum += v * v;
  const double rstd = 1 / std::sqrt(square_sum / n + epsilon);
  for (size_t h = 0; h < x.size(); ++h) dot += dy[h] * g[h] * x[h] * rstd;
  RmsNormGradients out{std::vector<double>(x.size()), std::vector<double>(x.size())};
  for (size_t h = 0; h < x.size(); ++h) {
    out.dx[h] = rstd * (dy[h] * g[h] - x[h] * rstd * dot / n);
    out.dgamma[h] = dy[h] * x[h] * rstd;
  }
  return out;
}

}  // namespace te::ref
