// The helpers themselves: a comparison that cannot fail would prove nothing anywhere.
#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

TEST(NearTest, AcceptsTheToleranceAndRefusesMore) {
  EXPECT_TRUE(Near({1, 2}, {1, 2.5}, 0.5));
  EXPECT_FALSE(Near({1, 2}, {1, 2.5}, 0.49));
  EXPECT_TRUE(Near({1, 2}, {1.1, 2.5}, {0.2, 0.5}));
  EXPECT_FALSE(Near({1, 2}, {1.1, 2.5}, {0.05, 0.5}));
  EXPECT_FALSE(Near({1}, {1, 2}, 9));
}

TEST(NearTest, NanAgreesOnlyWithNanAndInfinityOnlyWithItself) {
  EXPECT_TRUE(Near({kNan, kInfinity}, {kNan, kInfinity}, 0));
  EXPECT_FALSE(Near({kNan}, {1}, 1e9));
  EXPECT_FALSE(Near({1}, {kNan}, 1e9));
  EXPECT_FALSE(Near({kInfinity}, {-kInfinity}, kInfinity));
  EXPECT_FALSE(Near({kInfinity}, {1}, kInfinity));
}

TEST(FailsWithTest, ChecksCodeAndMessage) {
  const Status status = InvalidArgument("x is {}", 3);
  EXPECT_TRUE(FailsWith(status, StatusCode::kInvalidArgument, "is 3"));
  EXPECT_FALSE(FailsWith(status, StatusCode::kInvalidArgument, "is 4"));
  EXPECT_FALSE(FailsWith(status, StatusCode::kUnsupported, "is 3"));
  EXPECT_FALSE(IsOk(status));
  EXPECT_TRUE(IsOk(OkStatus()));
}

TEST(HostTensorTest, RoundsToTheDtypeAndReadsBackInRowMajorOrder) {
  const HostTensor x(DType::kBFloat16, {2, 2}, {1, 1 + 0x1p-9, 1 + 0x1.8p-8, -3}, 5);
  EXPECT_EQ(x.ToDoubles(), (std::vector<double>{1, 1, 1 + 0x1p-7, -3}));
  EXPECT_EQ(x.view().stride(0), 7);
  EXPECT_EQ(ToDoubles(x.view().Transpose(0, 1)), (std::vector<double>{1, 1 + 0x1p-7, 1, -3}));
}

TEST(HostTensorTest, UnitRoundoffIsTheLargestErrorOfOneRounding) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const double u = UnitRoundoff(dtype);
    EXPECT_EQ(HostTensor(dtype, {1}, std::vector<double>{1 + u}).ToDoubles()[0], 1)
        << Name(dtype);  // a tie, to even
    EXPECT_EQ(HostTensor(dtype, {1}, std::vector<double>{1 + 3 * u}).ToDoubles()[0], 1 + 4 * u)
        << Name(dtype);
  }
}

TEST(HostTensorTest, GuardsSeeAWriteBesideTheElements) {
  for (const int64_t pad : {0, 3}) {
    const HostTensor x(DType::kFloat32, {2, 3}, pad);
    EXPECT_TRUE(x.GuardsIntact());
    x.view().as<float>()[2] = 1;
    EXPECT_TRUE(x.GuardsIntact());
    x.view().as<float>()[pad == 0 ? 6 : 3] = 0;
    EXPECT_FALSE(x.GuardsIntact());
  }
}

TEST(CpuExecTest, ScratchStartsAsNan) {
  CpuExec exec(2);
  auto view = exec.exec().scratch->Allocate(DType::kBFloat16, {4});
  ASSERT_TRUE(view.ok());
  for (double v : ToDoubles(*view)) EXPECT_TRUE(std::isnan(v));
}

}  // namespace
}  // namespace te::test
