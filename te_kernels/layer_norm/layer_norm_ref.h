// LayerNorm, the obvious loops on one row, for any scalar: double, and std::complex<double> for the
// derivative.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

namespace te::ref {

// y[h] = (x[h] - mean) rstd g[h] + beta[h]; g already holds the 1 of a zero-centered gamma.
template <typename S>
std::vector<S> LayerNorm(const std::vector<S>& x, const std::vector<S>& g,
                         const std::vector<S>& beta, double epsilon) {
  using std::sqrt;
  const auto n = static_cast<double>(x.size());
  S sum = 0, square_sum = 0;
  for (const S& v : x) sum += v;
  const S mean = sum / n;
  for (const S& v : x) square_sum += (v - mean) * (v - mean);
  const S rstd = 1.0 / sqrt(square_sum / n + epsilon);
  std::vector<S> y(x.size());
  for (size_t h = 0; h < x.size(); ++h) y[h] = (x[h] - mean) * rstd * g[h] + beta[h];
  return y;
}

struct LayerNormGradients {
  std::vector<double> dx;
  std::vector<double> dgamma;  // this row's contribution; dbeta's is dy
};

inline LayerNormGradients LayerNormBackward(const std::vector<double>& dy,
                                            const std::vector<double>& x,
                                            const std::vector<double>& g, double epsilon) {
  const auto n = static_cast<double>(x.size());
  double mean = 0, variance = 0, w_mean = 0, dot_mean = 0;
  for (double v : x) mean += v / n;
  for (double v : x) variance += (v - mean) * (v - mean) / n;
  const double rstd = 1 / std::sqrt(variance + epsilon);
  LayerNormGradients out{std::vector<double>(x.size()), std::vector<double>(x.size())};
  for (size_t h = 0; h < x.size(); ++h) {
    const double xhat = (x[h] - mean) * rstd;
    w_mean += dy[h] * g[h] / n;
    dot_mean += dy[h] * g[h] * xhat / n;
    out.dgamma[h] = dy[h] * xhat;
  }
  for (size_t h = 0; h < x.size(); ++h) {
    out.dx[h] = rstd * (dy[h] * g[h] - w_mean - (x[h] - mean) * rstd * dot_mean);
  }
  return out;
}

}  // namespace te::ref
