#include "te_kernels/bias_gradient/bias_gradient.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/bias_gradient/bias_gradient_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::Disturbed;
using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Near;
using test::TestExec;
using test::UnitRoundoff;

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
struct Dtypes {
  DType dy, dbias;
};
constexpr Dtypes kDtypes[] = {{kF32, kF32}, {kBf16, kF32}, {kBf16, kBf16}};

TEST(BiasGradientTest, EqualsTheReferenceOnDenseAndStridedRows) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Shape& shape :
         {Shape{1, 1}, Shape{0, 3}, Shape{5, 0}, Shape{131, 17}, Shape{63, 257}, Shape{1000, 530},
          Shape{70'001, 8}, Shape{40, 4096}}) {
      for (const bool accumulate : {false, true}) {
        for (const int64_t pad : {0, 5}) {
          const int64_t rows = shape[0], columns = shape[1];
          const HostTensor dy = HostTensor::Normal(dtypes.dy, shape, 1, 1, pad);
          const HostTensor dbias = HostTensor::Normal(dtypes.dbias, {columns}, 2);
          std::vector<double> before = dbias.ToDoubles();
          if (!accumulate) before.assign(before.size(), 0);
          TestExec exec;
          ASSERT_TRUE(IsOk(
              TE_OP(BiasGradient)(exec, {.dy = dy, .dbias = dbias, .accumulate = accumulate})));
          const std::vector<double> want = BiasGradientRef(dy.ToDoubles(), rows, before);
          // Any order of T + 1 additions in float32 errs by at most T u times the sum of
          // magnitudes.
          std::vector<double> magnitudes = dy.ToDoubles();
          for (double& v : magnitudes) v = std::abs(v);
          for (double& v : before) v = std::abs(v);
          std::vector<double> tolerance = BiasGradientRef(magnitudes, rows, before);
          for (size_t n = 0; n < want.size(); ++n) {
            tolerance[n] *= static_cast<double>(rows) * UnitRoundoff(kF32);
            if (dtypes.dbias == kBf16) tolerance[n] += UnitRoundoff(kBf16) * std::abs(want[n]);
          }
          EXPECT_TRUE(Near(dbias.ToDoubles(), want, tolerance)) << shape.ToString();
          EXPECT_TRUE(dbias.GuardsIntact());
          if (rows == 0 || columns == 0) continue;
          EXPECT_FALSE(Near(dbias.ToDoubles(),
                            Disturbed(want, columns - 1, 3 * tolerance[columns - 1] + 1e-6),
                            tolerance));
        }
      }
    }
  }
}

TEST(BiasGradientTest, AnyAddress) {
  for (const DType dtype : {kF32, kBf16}) {
    const HostTensor dy = HostTensor::Normal(dtype, {50, 72}, 1);
    const TensorView shifted = dy.view().Slice(1, 3, 67);
    const HostTensor dbias(kF32, {64}), copied(kF32, {64});
    const HostTensor copy(dtype, {50, 64}, test::ToDoubles(shifted));
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(BiasGradient)(exec, {.dy = shifted, .dbias = dbias})));
    ASSERT_TRUE(IsOk(TE_OP(BiasGradient)(exec, {.dy = copy, .dbias = copied})));
    // Another order of 50 additions of numbers of size one.
    const double tolerance = 2 * 50 * 50 * UnitRoundoff(kF32);
    EXPECT_TRUE(Near(dbias.ToDoubles(), copied.ToDoubles(), tolerance));
    EXPECT_FALSE(Near(dbias.ToDoubles(), Disturbed(copied.ToDoubles(), 9, 0.1), tolerance));
  }
}

TEST(BiasGradientTest, RepeatsBitwiseForAnyNumberOfThreads) {
  for (const Dtypes& dtypes : kDtypes) {
    const HostTensor dy = HostTensor::Normal(dtypes.dy, {777, 1500}, 1);
    std::vector<uint8_t> first;
    for (const int threads : {1, 1, 2, 3}) {
      const HostTensor dbias(dtypes.dbias, {1500});
      TestExec exec(threads);
      ASSERT_TRUE(IsOk(TE_OP(BiasGradient)(exec, {.dy = dy, .dbias = dbias})));
      if (first.empty()) first = dbias.Bytes();
      EXPECT_EQ(dbias.Bytes(), first) << threads;
    }
  }
}

TEST(BiasGradientTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor dy(kF32, {4, 6}), dbias(kF32, {6}), narrow(kBf16, {6}),
      half(DType::kFloat16, {4, 6});
  TestExec exec;
  const auto check = [&](const BiasGradientArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(BiasGradient)(exec, args), StatusCode::kInvalidArgument, part));
  };
  check({.dy = half, .dbias = dbias}, "dy is float16");
  check({.dy = dy.view().Transpose(0, 1), .dbias = dbias}, "dy is float32 [6, 4] strides");
  check({.dy = dy.view().Reshape({24}), .dbias = dbias}, "dy is float32 [24]");
  check({.dy = dy, .dbias = dbias.view().Slice(0, 0, 5)},
        "dbias is float32 [5]; expected dense [6]");
  check({.dy = dy, .dbias = narrow}, "dbias is bfloat16");
  check({.dy = dy, .dbias = {}}, "dbias is nothing");
}

}  // namespace
}  // namespace te
