#include "te_kernels/testing/near.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace te::test {

::testing::AssertionResult Near(const std::vector<double>& got, const std::vector<double>& want,
                                const std::vector<double>& tolerance) {
  if (got.size() != want.size() || got.size() != tolerance.size()) {
    return ::testing::AssertionFailure() << got.size() << " values, wanted " << want.size()
                                         << ", tolerances " << tolerance.size();
  }
  size_t worst = 0;
  size_t failures = 0;
  double worst_excess = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(want[i])) continue;
    if (got[i] == want[i]) continue;
    const double error = std::abs(got[i] - want[i]);
    if (std::isfinite(error) && error <= tolerance[i]) continue;
    const double excess = std::isfinite(error) ? error - tolerance[i] : HUGE_VAL;
    if (failures++ == 0 || excess > worst_excess) {
      worst = i;
      worst_excess = excess;
    }
  }
  if (failures == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << failures << " of " << got.size() << " values differ; the worst, at " << worst << ": "
         << got[worst] << ", wanted " << want[worst] << " +- " << tolerance[worst];
}

::testing::AssertionResult Near(const std::vector<double>& got, const std::vector<double>& want,
                                double tolerance) {
  return Near(got, want, std::vector<double>(got.size(), tolerance));
}

::testing::AssertionResult IsOk(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.message();
}

::testing::AssertionResult FailsWith(const Status& status, StatusCode code, const char* part) {
  if (status.code() == code && status.message().find(part) != std::string::npos) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure()
         << "code " << static_cast<int>(status.code()) << " (wanted " << static_cast<int>(code)
         << "), message '" << status.message() << "' (wanted '" << part << "' in it)";
}

std::vector<double> Disturbed(std::vector<double> values, int64_t index, double by) {
  values.at(index) += by;
  return values;
}

double MaxAbs(const std::vector<double>& values) {
  double out = 0;
  for (double v : values) out = std::max(out, std::abs(v));
  return out;
}

}  // namespace te::test
