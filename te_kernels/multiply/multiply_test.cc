#include "te_kernels/multiply/multiply.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/multiply/multiply_ref.h"
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

constexpr DType kDtypes[] = {DType::kFloat32, DType::kBFloat16};

TEST(MultiplyTest, EqualsTheReferenceRoundedOnce) {
  for (const DType dtype : kDtypes) {
    for (const Shape& shape : {Shape{0}, Shape{1}, Shape{17}, Shape{3, 5, 7}, Shape{1000, 67}}) {
      const HostTensor a = HostTensor::Normal(dtype, shape, 1);
      const HostTensor b = HostTensor::Normal(dtype, shape, 2);
      const HostTensor out(dtype, shape);
      TestExec exec;
      ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = a, .b = b, .out = out})));
      const std::vector<double> want = MultiplyRef(a.ToDoubles(), b.ToDoubles());
      std::vector<double> tolerance;
      // One rounding in float32 and one to the dtype.
      for (double w : want) {
        tolerance.push_back((UnitRoundoff(DType::kFloat32) + UnitRoundoff(dtype)) * std::abs(w));
      }
      EXPECT_TRUE(Near(out.ToDoubles(), want, tolerance)) << shape.ToString();
      EXPECT_TRUE(a.GuardsIntact() && b.GuardsIntact() && out.GuardsIntact());
      if (want.empty()) continue;
      const size_t last = want.size() - 1;
      EXPECT_FALSE(Near(out.ToDoubles(), Disturbed(want, last, 4 * tolerance[last]), tolerance));
    }
  }
}

TEST(MultiplyTest, AnyAddress) {
  for (const DType dtype : kDtypes) {
    const Shape shape = {5'000};
    const HostTensor a = HostTensor::Normal(dtype, {5'003}, 1);
    const HostTensor b = HostTensor::Normal(dtype, shape, 2);
    const HostTensor shifted(dtype, shape), out(dtype, shape);
    const TensorView tail = a.view().Slice(0, 3, 5'003);
    const HostTensor copy(dtype, shape, test::ToDoubles(tail));
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = tail, .b = b, .out = shifted})));
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = copy, .b = b, .out = out})));
    EXPECT_EQ(shifted.Bytes(), out.Bytes());
  }
}

TEST(MultiplyTest, OutMayBeEitherOperand) {
  for (const DType dtype : kDtypes) {
    const Shape shape = {70'001};
    TestExec exec(2);
    const HostTensor b = HostTensor::Normal(dtype, shape, 2);
    const HostTensor out(dtype, shape);
    const HostTensor as_a = HostTensor::Normal(dtype, shape, 1);
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = as_a, .b = b, .out = out})));
    const HostTensor as_b = HostTensor::Normal(dtype, shape, 1);
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = as_a, .b = b, .out = as_a})));
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = b, .b = as_b, .out = as_b})));
    EXPECT_EQ(as_a.Bytes(), out.Bytes());
    EXPECT_EQ(as_b.Bytes(), out.Bytes());
  }
}

TEST(MultiplyTest, RepeatsBitwiseForAnyNumberOfThreads) {
  for (const DType dtype : kDtypes) {
    const Shape shape = {200'003};
    const HostTensor a = HostTensor::Normal(dtype, shape, 1);
    const HostTensor b = HostTensor::Normal(dtype, shape, 2);
    const HostTensor first(dtype, shape);
    TestExec one;
    ASSERT_TRUE(IsOk(TE_OP(Multiply)(one, {.a = a, .b = b, .out = first})));
    for (const int threads : {1, 2, 3}) {
      const HostTensor out(dtype, shape);
      TestExec exec(threads);
      ASSERT_TRUE(IsOk(TE_OP(Multiply)(exec, {.a = a, .b = b, .out = out})));
      EXPECT_EQ(out.Bytes(), first.Bytes());
    }
  }
}

TEST(MultiplyTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor x(DType::kFloat32, {4, 6}), narrow(DType::kBFloat16, {4, 6});
  const HostTensor integers(DType::kInt32, {4, 6}), strided(DType::kFloat32, {4, 6}, 2);
  const HostTensor other(DType::kFloat32, {6, 4});
  TestExec exec;
  const auto check = [&](const MultiplyArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(Multiply)(exec, args), StatusCode::kInvalidArgument, part));
  };
  check({.a = x, .b = other, .out = x}, "b is float32 [6, 4]");
  check({.a = x, .b = narrow, .out = x}, "b is bfloat16");
  check({.a = x, .b = x, .out = narrow}, "out is bfloat16");
  check({.a = integers, .b = integers, .out = integers}, "a is int32");
  check({.a = x, .b = strided, .out = x}, "b is float32 [4, 6] strides [8, 1]");
  check({.a = x, .b = x, .out = TensorView(nullptr, DType::kFloat32, {4, 6})}, "out is nothing");
}

}  // namespace
}  // namespace te
