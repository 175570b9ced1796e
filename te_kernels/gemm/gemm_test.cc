#include "te_kernels/gemm/gemm.h"

#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/gemm/gemm_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#ifndef TE_TEST_CUDA
#include "te_kernels/gemm/amx_matmul.h"
#include "te_kernels/gemm/onednn_exec.h"
#endif

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

struct Case {
  GemmKind kind;
  int64_t tokens, out_features, in_features;  // M, N, K of gemm.h
  DType dtype, d_dtype;
  float beta;
  bool bias;
  bool separate_c;
  int64_t pad;
};

class GemmCase {
 public:
  explicit GemmCase(const Case& c) : c_(c), d_(c.d_dtype, DShape(), c.pad) {
    a_.emplace(HostTensor::Normal(c.dtype, AShape(), 1, 1, c.pad));
    b_.emplace(HostTensor::Normal(c.dtype, BShape(), 2, 1, c.pad));
    c_in_.emplace(HostTensor::Normal(c.d_dtype, DShape(), 3, 1, c.pad));
    bias_.emplace(HostTensor::Normal(c.d_dtype, {DShape()[1]}, 4));
  }

  Status Run(const Exec& exec) {
    test::FromDoubles(c_.separate_c ? Doubles(d_.view().elements(), 77.0) : c_in_->ToDoubles(), d_);
    GemmArgs args;
    args.kind = c_.kind;
    args.a = a_->view();
    args.b = b_->view();
    if (c_.bias) args.bias = *bias_;
    if (c_.separate_c) args.c = *c_in_;
    args.d = d_;
    args.beta = c_.beta;
    return TE_OP(Gemm)(exec, args);
  }

  Doubles Got() const { return d_.ToDoubles(); }
  std::vector<uint8_t> Bytes() const { return d_.Bytes(); }
  bool GuardsIntact() const { return d_.GuardsIntact(); }

  Doubles Want(const Doubles& a) const {
    return Sum(a, b_->ToDoubles(), c_in_->ToDoubles(), bias_->ToDoubles());
  }
  Doubles A() const { return a_->ToDoubles(); }

  // Summing K products in any order in float32 errs by at most K u sum |a b| (Higham 2002,
  // section 3.1); the bias and c add a rounding each, the store one of d's dtype, and so may the
  // sum before the bias. On the path through float32 the same holds.
  Doubles Tolerance() const {
    const auto magnitude = [](Doubles v) {
      for (double& x : v) x = std::abs(x);
      return v;
    };
    const Doubles sums = Sum(magnitude(A()), magnitude(b_->ToDoubles()),
                             magnitude(c_in_->ToDoubles()), magnitude(bias_->ToDoubles()));
    Doubles out;
    const double float_error =
        static_cast<double>(Terms() + 3) * test::UnitRoundoff(DType::kFloat32);
    const double stores = (c_.bias ? 2.02 : 1.01) * test::UnitRoundoff(c_.d_dtype);
    for (double s : sums) out.push_back((float_error + stores) * s);
    return out;
  }

 private:
  Shape AShape() const {
    return c_.kind == GemmKind::kFprop ? Shape{c_.tokens, c_.in_features}
                                       : Shape{c_.tokens, c_.out_features};
  }
  Shape BShape() const {
    return c_.kind == GemmKind::kWgrad ? Shape{c_.tokens, c_.in_features}
                                       : Shape{c_.out_features, c_.in_features};
  }
  Shape DShape() const {
    switch (c_.kind) {
      case GemmKind::kFprop:
        return {c_.tokens, c_.out_features};
      case GemmKind::kDgrad:
        return {c_.tokens, c_.in_features};
      default:
        return {c_.out_features, c_.in_features};
    }
  }
  int64_t Terms() const {
    switch (c_.kind) {
      case GemmKind::kFprop:
        return c_.in_features;
      case GemmKind::kDgrad:
        return c_.out_features;
      default:
        return c_.tokens;
    }
  }
  Doubles Sum(const Doubles& a, const Doubles& b, const Doubles& c, const Doubles& bias) const {
    const Shape d = DShape();
    Doubles out = ref::MatMul(a, c_.kind == GemmKind::kWgrad, b, c_.kind == GemmKind::kFprop, d[0],
                              d[1], Terms());
    for (int64_t i = 0; i < d.elements(); ++i)
      out[i] += (c_.beta != 0 ? c[i] : 0) + (c_.bias ? bias[i % d[1]] : 0);
    return out;
  }

  Case c_;
  std::optional<HostTensor> a_, b_, c_in_, bias_;
  HostTensor d_;
};

std::vector<Case> Cases() {
  const int64_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},      {16, 32, 48},  {33, 17, 129},
                               {2, 31, 1},    {0, 4, 3},      {4, 0, 3},     {5, 6, 0},
                               {64, 96, 80},  {257, 259, 18}, {3, 16500, 5}, {16500, 3, 5},
                               {45, 70, 300}, {70, 40, 33}};
  std::vector<Case> out;
  for (const auto& [m, n, k] : shapes) {
    for (GemmKind kind : {GemmKind::kFprop, GemmKind::kDgrad, GemmKind::kWgrad}) {
      const bool bias = kind == GemmKind::kFprop;
      for (const auto& [dtype, d_dtype] : {std::pair{DType::kFloat32, DType::kFloat32},
                                           {DType::kBFloat16, DType::kBFloat16},
                                           {DType::kBFloat16, DType::kFloat32}}) {
        out.push_back({kind, m, n, k, dtype, d_dtype, 0, false, false, 0});
        out.push_back({kind, m, n, k, dtype, d_dtype, 1, bias, false, 3});
        out.push_back({kind, m, n, k, dtype, d_dtype, 1, false, true, 0});
        out.push_back({kind, m, n, k, dtype, d_dtype, 0, bias, true, 8});
      }
    }
  }
  return out;
}

void CheckAll(const Exec& exec) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(fmt::format("kind {} shape {}x{}x{} {} -> {} beta {} bias {} c {} pad {}",
                             static_cast<int>(c.kind), c.tokens, c.out_features, c.in_features,
                             Name(c.dtype), Name(c.d_dtype), c.beta, c.bias, c.separate_c, c.pad));
    GemmCase problem(c);
    ASSERT_TRUE(test::IsOk(problem.Run(exec)));
    EXPECT_TRUE(test::Near(problem.Got(), problem.Want(problem.A()), problem.Tolerance()));
    EXPECT_TRUE(problem.GuardsIntact());
  }
}

TEST(Gemm, AgreesWithTheSumInDouble) { CheckAll(test::TestLibraryExec(1)); }
TEST(Gemm, AgreesOnTwoThreads) { CheckAll(test::TestLibraryExec(2)); }
TEST(Gemm, AgreesWithoutBfloat16Instructions) {
  CheckAll(test::TestLibraryExec(2, /*native_bf16=*/false));
}

// Sums longer than kAmxTerms meet in float32.
TEST(Gemm, LongBfloat16SumsAreCut) {
  const std::tuple<GemmKind, int64_t, int64_t, int64_t> cases[] = {
      {GemmKind::kFprop, 33, 34, 4100},
      {GemmKind::kDgrad, 33, 4100, 34},
      {GemmKind::kWgrad, 4100, 33, 34}};
  for (const auto& [kind, m, n, k] : cases) {
    const bool bias = kind == GemmKind::kFprop;
    GemmCase problem({kind, m, n, k, DType::kBFloat16, DType::kBFloat16, 1, bias, true, 0});
    ASSERT_TRUE(test::IsOk(problem.Run(test::TestLibraryExec(2))));
    EXPECT_TRUE(test::Near(problem.Got(), problem.Want(problem.A()), problem.Tolerance()));
  }
}

TEST(Gemm, ADisturbedOperandIsNoticed) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    GemmCase problem({GemmKind::kWgrad, 33, 17, 29, dtype, dtype, 0, false, false, 0});
    test::TestLibraryExec exec(2);
    ASSERT_TRUE(test::IsOk(problem.Run(exec)));
    EXPECT_FALSE(test::Near(problem.Got(), problem.Want(test::Disturbed(problem.A(), 40, 2.0)),
                            problem.Tolerance()));
  }
}

#ifndef TE_TEST_CUDA
TEST(Gemm, OnAmxTheNumberOfThreadsDoesNotChangeABit) {
  const ConstTensorView square(nullptr, DType::kBFloat16, {64, 64});
  if (!RunsOnAmx({.a = square, .b = square, .d = square})) GTEST_SKIP() << "no AMX here";
  for (GemmKind kind : {GemmKind::kFprop, GemmKind::kDgrad, GemmKind::kWgrad}) {
    GemmCase problem({kind, 257, 700, 391, DType::kBFloat16, DType::kBFloat16, 1, false, false, 0});
    ASSERT_TRUE(test::IsOk(problem.Run(test::TestLibraryExec(1))));
    const std::vector<uint8_t> alone = problem.Bytes();
    ASSERT_TRUE(test::IsOk(problem.Run(test::TestLibraryExec(2))));
    EXPECT_EQ(problem.Bytes(), alone);
  }
}
#endif

TEST(Gemm, RepeatsBitForBit) {
  for (GemmKind kind : {GemmKind::kFprop, GemmKind::kDgrad, GemmKind::kWgrad}) {
    GemmCase problem({kind, 257, 129, 191, DType::kBFloat16, DType::kBFloat16, 1, false, false, 0});
    test::TestLibraryExec exec(2);
    ASSERT_TRUE(test::IsOk(problem.Run(exec)));
    const std::vector<uint8_t> first = problem.Bytes();
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(test::IsOk(problem.Run(exec)));
      EXPECT_EQ(problem.Bytes(), first);
    }
  }
}

TEST(Gemm, BadArgumentsAreNamed) {
  test::TestLibraryExec exec;
  HostTensor x(DType::kFloat32, {4, 8}), w(DType::kFloat32, {6, 7}), y(DType::kFloat32, {4, 6});
  EXPECT_TRUE(test::FailsWith(TE_OP(Gemm)(exec, {.a = x.view(), .b = w.view(), .d = y}),
                              StatusCode::kInvalidArgument, "gemm fprop: x is"));
  HostTensor half(DType::kBFloat16, {6, 8});
  EXPECT_TRUE(test::FailsWith(TE_OP(Gemm)(exec, {.a = x.view(), .b = half.view(), .d = y}),
                              StatusCode::kInvalidArgument, "one dtype"));
  HostTensor good(DType::kFloat32, {6, 8});
  EXPECT_TRUE(
      test::FailsWith(TE_OP(Gemm)(exec, {.a = x.view(), .b = good.view(), .d = y, .beta = 0.5f}),
                      StatusCode::kInvalidArgument, "beta is 0.5"));
  EXPECT_TRUE(test::FailsWith(TE_OP(Gemm)(exec, {.a = x.view(), .b = good.view(), .d = x}),
                              StatusCode::kInvalidArgument, "y is"));
  Operand quantized(x.view());
  quantized.quant.format = QuantFormat::kFloat8E4M3;
  EXPECT_TRUE(test::FailsWith(TE_OP(Gemm)(exec, {.a = quantized, .b = good.view(), .d = y}),
                              StatusCode::kInvalidArgument, "both quantized or neither"));
  Exec bare = exec;
  bare.libraries = nullptr;
  EXPECT_TRUE(test::FailsWith(TE_OP(Gemm)(bare, {.a = x.view(), .b = good.view(), .d = y}),
                              StatusCode::kFailedPrecondition, "state"));
}

}  // namespace
}  // namespace te
