// Comparison of results with a derived tolerance. The functions return GoogleTest's result, so that
// a test can also assert that a disturbed twin fails:
//   EXPECT_TRUE(Near(y.ToDoubles(), want, tolerance));
//   EXPECT_FALSE(Near(y.ToDoubles(), want_from_a_disturbed_input, tolerance));
#pragma once

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/status.h"

namespace te::test {

// |got[i] - want[i]| <= tolerance[i] for all i; NaN agrees only with NaN, an infinity only with
// itself. The failure names the worst element.
::testing::AssertionResult Near(const std::vector<double>& got, const std::vector<double>& want,
                                const std::vector<double>& tolerance);
::testing::AssertionResult Near(const std::vector<double>& got, const std::vector<double>& want,
                                double tolerance);

// Ok; the failure shows the message. For EXPECT_TRUE(IsOk(Operation(...))).
::testing::AssertionResult IsOk(const Status& status);
// Fails with `code` and a message that contains `part`.
::testing::AssertionResult FailsWith(const Status& status, StatusCode code, const char* part);

// A copy with element `index` moved by `by`.
std::vector<double> Disturbed(std::vector<double> values, int64_t index, double by);

double MaxAbs(const std::vector<double>& values);

}  // namespace te::test
