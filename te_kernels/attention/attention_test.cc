#include "te_kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/attention/attention_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"
#ifdef TE_TEST_CUDA
#include "te_kernels/attention/attention_fallback_cuda.h"
#else
#include "te_kernels/gemm/onednn_exec.h"
#endif

namespace te {
namespace {

using ref::AttentionShape;
using test::HostTensor;
using Complex = std::complex<double>;
using Doubles = std::vector<double>;

constexpr AttentionMaskType kTypes[] = {
    AttentionMaskType::kNoMask,
    AttentionMaskType::kPadding,
    AttentionMaskType::kCausal,
    AttentionMaskType::kPaddingCausal,
    AttentionMaskType::kCausalBottomRight,
    AttentionMaskType::kPaddingCausalBottomRight,
    AttentionMaskType::kArbitrary,
};

// On CUDA every case runs through the operation, where cuDNN takes what it can, the same with
// Exec::allow_nondeterministic, and through the fallback alone. The CPU has one path.
enum class Path { kOperation, kNondeterministic, kFallback };

struct Case {
  AttentionShape s;
  DType dtype = DType::kFloat32;
  AttentionMaskType type = AttentionMaskType::kCausal;
  int64_t window_left = -1, window_right = -1;
  float dropout = 0;
  int64_t pad = 0;
  bool right_padding = false;  // what the padding mask holds: nothing but each sequence's end
};

// Sequence b has keys - 7 (b + 1) keys, but at least one.
HostTensor RightPadding(int64_t batch, int64_t keys) {
  Doubles values;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = std::max<int64_t>(1, keys - 7 * (b + 1));
    for (int64_t j = 0; j < keys; ++j) values.push_back(j < length ? 0 : 1);
  }
  return HostTensor(DType::kUInt8, {batch, keys}, values);
}

HostTensor Bits(const Shape& shape, uint64_t seed) {
  Doubles values = test::UniformDoubles(shape.elements(), seed, 0, 1);
  for (double& v : values) v = v < 0.4 ? 1 : 0;
  return HostTensor(DType::kUInt8, shape, values);
}

class Problem {
 public:
  Problem(const Case& c, Path path)
      : c_(c),
        path_(path),
        q_(HostTensor::Normal(c.dtype, {c.s.batch, c.s.queries, c.s.heads, c.s.head_dim}, 1, 1,
                              c.pad)),
        k_(HostTensor::Normal(c.dtype, {c.s.batch, c.s.keys, c.s.groups, c.s.head_dim}, 2, 1,
                              c.pad)),
        v_(HostTensor::Normal(c.dtype, {c.s.batch, c.s.keys, c.s.groups, c.s.value_dim}, 3, 1,
                              c.pad)),
        dout_(HostTensor::Normal(c.dtype, OutShape(), 4, 1, c.pad)),
        out_(c.dtype, OutShape(), c.pad),
        lse_(DType::kFloat32, {c.s.batch, c.s.heads, c.s.queries}),
        dq_(c.dtype, q_.view().shape(), c.pad),
        dk_(c.dtype, k_.view().shape(), c.pad),
        dv_(c.dtype, v_.view().shape(), c.pad),
        padding_(c.right_padding ? RightPadding(c.s.batch, c.s.keys)
                                 : Bits({c.s.batch, c.s.keys}, 5)),
        arbitrary_(Bits({1, c.s.heads, c.s.queries, c.s.keys}, 6)) {
    random_.step_offset = step_offset_.get();
  }

  Status Forward(const Exec& exec) {
    const AttentionForwardArgs args = {.q = q_,
                                       .k = k_,
                                       .v = v_,
                                       .mask = Mask(),
                                       .softmax_scale = Scale(),
                                       .dropout = c_.dropout,
                                       .random = random_,
                                       .out = out_,
                                       .lse = with_lse_ ? TensorView(lse_) : TensorView()};
#ifdef TE_TEST_CUDA
    if (path_ == Path::kFallback) return TE_OP(AttentionForwardFallback)(exec, args);
#endif
    return TE_OP(AttentionForward)(exec, args);
  }
  Status Backward(const Exec& exec) {
    const AttentionBackwardArgs args = {.q = q_,
                                        .k = k_,
                                        .v = v_,
                                        .out = out_,
                                        .dout = dout_,
                                        .lse = lse_,
                                        .mask = Mask(),
                                        .softmax_scale = Scale(),
                                        .dropout = c_.dropout,
                                        .random = random_,
                                        .dq = dq_,
                                        .dk = dk_,
                                        .dv = dv_};
#ifdef TE_TEST_CUDA
    if (path_ == Path::kFallback) return TE_OP(AttentionBackwardFallback)(exec, args);
#endif
    Exec allowing = exec;
    allowing.allow_nondeterministic = path_ == Path::kNondeterministic;
    return TE_OP(AttentionBackward)(allowing, args);
  }

  AttentionMask Mask() const {
    return {.type = c_.type,
            .padding = padding_,
            .padding_on_the_right = c_.right_padding,
            .arbitrary = arbitrary_,
            .window_left = c_.window_left,
            .window_right = c_.window_right};
  }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(c_.s.head_dim)); }

  template <typename Scalar>
  std::vector<Scalar> Want(const std::vector<Scalar>& q, const std::vector<Scalar>& k,
                           const std::vector<Scalar>& v, Doubles* lse = nullptr) const {
    return ref::Attention<Scalar>(c_.s, q, k, v, Mask(), Scale(), c_.dropout, random_, lse);
  }

  ref::AttentionGradients WantGradients() const {
    return ref::AttentionBackward(c_.s, q_.ToDoubles(), k_.ToDoubles(), v_.ToDoubles(),
                                  dout_.ToDoubles(), Mask(), Scale(), c_.dropout, random_);
  }

  // Derivative of sum(dout * out) in the direction of one element after the other, by the complex
  // step (Squire and Trapp 1998): exact.
  Doubles WantGradient(int which) const {
    std::vector<Complex> inputs[3];
    const HostTensor* tensors[3] = {&q_, &k_, &v_};
    for (int i = 0; i < 3; ++i) {
      for (double x : tensors[i]->ToDoubles()) inputs[i].push_back(x);
    }
    const Doubles dout = dout_.ToDoubles();
    Doubles gradient;
    for (Complex& x : inputs[which]) {
      const Complex saved = x;
      x += Complex(0, 1e-30);
      const std::vector<Complex> out = Want<Complex>(inputs[0], inputs[1], inputs[2]);
      double sum = 0;
      for (size_t i = 0; i < out.size(); ++i) sum += dout[i] * out[i].imag() / 1e-30;
      gradient.push_back(sum);
      x = saved;
    }
    return gradient;
  }

  // Errors, to first order. u: float32's roundoff, w: that of the dtype (the roundings of p, ds,
  // out and the result).
  //   scores err by (d + 2) u sum|q k| scale <= (d + 2) u S, and a change e of a score changes its
  //   p by the factor 1 + 2 e: p errs by the factor 1 + dp with dp = 2 (d + 2) u S + (Skv + 8) u
  //   (exponential, sum, quotient), out by dp + (Skv + 1) u + 2 w relative to sum p |v| <= max |v|
  //   / (1 - dropout).
  double ScoreSize() const {  // Cauchy and Schwarz: sum |q k| <= |q| |k|
    return Scale() * LongestRow(q_) * LongestRow(k_);
  }
  static double LongestRow(const HostTensor& x) {
    const Doubles values = x.ToDoubles();
    const size_t width = static_cast<size_t>(x.view().dim(3));
    double longest = 0, sum = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      sum = (i % width == 0 ? 0 : sum) + values[i] * values[i];
      longest = std::max(longest, sum);
    }
    return std::sqrt(longest);
  }
  double ProbabilityError() const {
    const double u = test::UnitRoundoff(DType::kFloat32);
    return (2 * (c_.s.head_dim + 2) * ScoreSize() + c_.s.keys + 8) * u;
  }
  double OutTolerance() const {
    const double u = test::UnitRoundoff(DType::kFloat32), w = test::UnitRoundoff(c_.dtype);
    return 1.1 * (ProbabilityError() + (c_.s.keys + 1) * u + 2 * w) * test::MaxAbs(v_.ToDoubles()) /
           (1 - c_.dropout);
  }
  //   |dp_ij - D_i| <= 2 G, G = max |dout_i| |v_j| / (1 - dropout): it errs by G ((dv + 2) u + w +
  //   dp); ds = p (dp - D) scale errs by 2 G scale (dp + (dv + 3) u + 2 w) p in sum over j, where
  //   sum_j p = 1, and dq sums it against k. For dk and dv the sum runs over the queries of all
  //   heads of the group: at most R rows, each p <= 1.
  double GradientTolerance(int which) const {
    const double u = test::UnitRoundoff(DType::kFloat32), w = test::UnitRoundoff(c_.dtype);
    const double rows = static_cast<double>(c_.s.queries * c_.s.heads / c_.s.groups);
    const double dout = test::MaxAbs(dout_.ToDoubles());
    const double g = LongestRow(dout_) * LongestRow(v_) / (1 - c_.dropout);
    const double relative =
        ProbabilityError() + (c_.s.value_dim + c_.s.keys + rows + 3) * u + 4 * w;
    if (which == 0) return 2 * relative * 2 * g * Scale() * test::MaxAbs(k_.ToDoubles());
    if (which == 1)
      return 2 * relative * 2 * g * Scale() * test::MaxAbs(q_.ToDoubles()) * std::sqrt(rows);
    return 2 * relative * dout * std::sqrt(rows) / (1 - c_.dropout);
  }

  Case c_;
  Path path_;
  bool with_lse_ = true;
  HostTensor q_, k_, v_, dout_, out_, lse_, dq_, dk_, dv_, padding_, arbitrary_;
  test::Shared<uint64_t> step_offset_{uint64_t{5} << 30};
  RandomState random_ = {.seed = 7, .stream = 3, .offset = 11};

 private:
  Shape OutShape() const { return {c_.s.batch, c_.s.queries, c_.s.heads, c_.s.value_dim}; }
};

std::vector<Case> SmallCases() {
  std::vector<Case> out;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (AttentionMaskType type : kTypes) {
      out.push_back({{2, 5, 5, 4, 2, 6, 6}, dtype, type});
      out.push_back(
          {{1, 3, 7, 3, 1, 5, 4}, dtype, type, -1, -1, 0, 3});  // more keys than queries, odd
                                                                // head_dim, padded strides
      out.push_back({{1, 7, 4, 2, 2, 1, 1}, dtype, type, -1, -1, 0.3f});  // fewer keys; dropout
      out.push_back({{1, 9, 9, 2, 1, 4, 4}, dtype, type, 2, 1});          // window
      out.push_back({{1, 6, 6, 2, 2, 3, 3}, dtype, type, 0, 0, 0.5f});    // the diagonal alone
    }
  }
  return out;
}

// Over several tiles, with the head dimensions of models.
std::vector<Case> TiledCases() {
  constexpr DType kBf16 = DType::kBFloat16;
  constexpr AttentionMaskType kNone = AttentionMaskType::kNoMask;
  constexpr AttentionMaskType kCausal = AttentionMaskType::kCausal;
  constexpr AttentionMaskType kBottomRight = AttentionMaskType::kCausalBottomRight;
  std::vector<Case> out;
  for (DType dtype : {DType::kFloat32, kBf16}) {
    for (int64_t d : {64, 96, 128, 256}) out.push_back({{1, 70, 70, 4, 2, d, d}, dtype, kCausal});
    out.push_back({{2, 40, 131, 2, 1, 64, 64}, dtype, kNone});
    for (AttentionMaskType type : {AttentionMaskType::kPadding, AttentionMaskType::kPaddingCausal})
      out.push_back({{3, 66, 66, 4, 2, 64, 64}, dtype, type, -1, -1, 0, 0, true});
    out.push_back({{1, 150, 150, 2, 1, 64, 64}, dtype, kCausal, 20});
    out.push_back({{1, 33, 140, 8, 2, 64, 64}, dtype, kBottomRight});
    out.push_back({{1, 33, 140, 2, 1, 128, 128}, dtype, kBottomRight, 40});
    // What cuDNN does not take.
    out.push_back({{1, 67, 131, 2, 1, 80, 72}, dtype, kNone, -1, -1, 0.2f, 3});
    out.push_back({{2, 131, 67, 2, 1, 33, 130}, dtype, AttentionMaskType::kArbitrary});
    out.push_back({{1, 140, 70, 2, 1, 64, 64}, dtype, kBottomRight});  // rows that see no key
    out.push_back({{1, 130, 130, 2, 2, 40, 40}, dtype, kNone, 30, 10});
    out.push_back({{1, 20, 70, 1, 1, 300, 520}, dtype, kNone});  // wider than one block's columns
  }
  return out;
}

std::string Describe(const Case& c) {
  return fmt::format("{} {} B{} Sq{} Skv{} n{} g{} d{}/{} window {},{} dropout {} pad {}{}",
                     Name(c.dtype), Name(c.type), c.s.batch, c.s.queries, c.s.keys, c.s.heads,
                     c.s.groups, c.s.head_dim, c.s.value_dim, c.window_left, c.window_right,
                     c.dropout, c.pad, c.right_padding ? " right padding" : "");
}

class Attention : public testing::TestWithParam<Path> {
 protected:
  Problem Make(const Case& c) const { return Problem(c, GetParam()); }
};
std::vector<Path> Paths() {
  if (test::kOnCuda) return {Path::kOperation, Path::kNondeterministic, Path::kFallback};
  return {Path::kOperation};
}
INSTANTIATE_TEST_SUITE_P(Paths, Attention, testing::ValuesIn(Paths()), [](const auto& info) {
  return info.param == Path::kOperation          ? "Operation"
         : info.param == Path::kNondeterministic ? "Nondeterministic"
                                                 : "Fallback";
});

// Native bfloat16 products and, on the CPU, products in float32.
std::vector<bool> NativeOrNot() {
  return test::kOnCuda ? std::vector<bool>{true} : std::vector<bool>{true, false};
}

void CheckForward(const Exec& exec, Problem& p) {
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  Doubles lse;
  const Doubles want = p.Want(p.q_.ToDoubles(), p.k_.ToDoubles(), p.v_.ToDoubles(), &lse);
  EXPECT_TRUE(test::Near(p.out_.ToDoubles(), want, p.OutTolerance()));
  const double u = test::UnitRoundoff(DType::kFloat32);
  EXPECT_TRUE(test::Near(p.lse_.ToDoubles(), lse, p.ProbabilityError() + u * (p.ScoreSize() + 20)));
  EXPECT_TRUE(p.out_.GuardsIntact());
}

TEST_P(Attention, ForwardAgreesForEveryMask) {
  for (bool native : NativeOrNot()) {
    test::TestLibraryExec exec(2, native);
    for (const Case& c : SmallCases()) {
      SCOPED_TRACE(Describe(c));
      Problem p = Make(c);
      CheckForward(exec, p);
    }
  }
}

TEST_P(Attention, ForwardAgreesForTiledCases) {
  test::TestLibraryExec exec(2);
  for (const Case& c : TiledCases()) {
    SCOPED_TRACE(Describe(c));
    Problem p = Make(c);
    CheckForward(exec, p);
    // Without lse, as in inference: the same bits where the path is the same.
    const Doubles with_lse = p.out_.ToDoubles();
    p.with_lse_ = false;
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    EXPECT_TRUE(test::Near(p.out_.ToDoubles(), with_lse, 2 * p.OutTolerance()));
  }
}

TEST_P(Attention, ForwardAgreesOverSeveralBlocks) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (AttentionMaskType type : kTypes) {
      Case c{
          {1, 301, 301, 2, 1, 16, 16}, dtype, type, type == AttentionMaskType::kCausal ? 70 : -1};
      SCOPED_TRACE(Describe(c));
      Problem p = Make(c);
      CheckForward(test::TestLibraryExec(2), p);
    }
  }
}

TEST_P(Attention, BackwardIsTheComplexStepDerivative) {
  for (bool native : NativeOrNot()) {
    test::TestLibraryExec exec(2, native);
    for (const Case& c : SmallCases()) {
      SCOPED_TRACE(Describe(c));
      Problem p = Make(c);
      ASSERT_TRUE(test::IsOk(p.Forward(exec)));
      ASSERT_TRUE(test::IsOk(p.Backward(exec)));
      const HostTensor* got[3] = {&p.dq_, &p.dk_, &p.dv_};
      for (int which = 0; which < 3; ++which) {
        SCOPED_TRACE(which);
        EXPECT_TRUE(
            test::Near(got[which]->ToDoubles(), p.WantGradient(which), p.GradientTolerance(which)));
        EXPECT_TRUE(got[which]->GuardsIntact());
      }
    }
  }
}

// The formulas of attention_ref.h against the complex step; the tiled cases then take the formulas.
TEST(AttentionReference, GradientsAreTheComplexStepDerivative) {
  for (const Case& c : SmallCases()) {
    SCOPED_TRACE(Describe(c));
    Problem p(c, Path::kOperation);
    const ref::AttentionGradients gradients = p.WantGradients();
    const Doubles* got[3] = {&gradients.dq, &gradients.dk, &gradients.dv};
    for (int which = 0; which < 3; ++which) {
      // Float32's bound of the same sums, at float64's roundoff.
      const double tolerance = p.GradientTolerance(which) * test::UnitRoundoff(DType::kFloat64) /
                               test::UnitRoundoff(DType::kFloat32);
      const Doubles want = p.WantGradient(which);
      EXPECT_TRUE(test::Near(*got[which], want, tolerance));
      EXPECT_FALSE(test::Near(*got[which], test::Disturbed(want, 0, 2 * tolerance), tolerance));
    }
  }
}

TEST_P(Attention, BackwardAgreesForTiledCases) {
  test::TestLibraryExec exec(2);
  for (const Case& c : TiledCases()) {
    SCOPED_TRACE(Describe(c));
    Problem p = Make(c);
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    ASSERT_TRUE(test::IsOk(p.Backward(exec)));
    const ref::AttentionGradients want = p.WantGradients();
    const HostTensor* got[3] = {&p.dq_, &p.dk_, &p.dv_};
    const Doubles* wants[3] = {&want.dq, &want.dk, &want.dv};
    for (int which = 0; which < 3; ++which) {
      SCOPED_TRACE(which);
      const double tolerance = p.GradientTolerance(which);
      EXPECT_TRUE(test::Near(got[which]->ToDoubles(), *wants[which], tolerance));
      EXPECT_FALSE(test::Near(got[which]->ToDoubles(),
                              test::Disturbed(*wants[which], 5, 2 * tolerance + 0.01), tolerance));
      EXPECT_TRUE(got[which]->GuardsIntact());
    }
  }
}

// Over several blocks: the derivative along the gradient itself (by the complex step) is its
// squared norm.
TEST_P(Attention, BackwardAgreesOverSeveralBlocks) {
  test::TestLibraryExec exec(2);
  Problem p = Make(
      {{1, 150, 290, 4, 2, 8, 8}, DType::kFloat32, AttentionMaskType::kCausalBottomRight, 100});
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  const HostTensor* tensors[3] = {&p.q_, &p.k_, &p.v_};
  const HostTensor* gradients[3] = {&p.dq_, &p.dk_, &p.dv_};
  const Doubles dout = p.dout_.ToDoubles();
  for (int which = 0; which < 3; ++which) {
    std::vector<Complex> inputs[3];
    for (int i = 0; i < 3; ++i) {
      for (double x : tensors[i]->ToDoubles()) inputs[i].push_back(x);
    }
    const Doubles direction = gradients[which]->ToDoubles();
    for (size_t i = 0; i < direction.size(); ++i)
      inputs[which][i] += Complex(0, 1e-30 * direction[i]);
    const std::vector<Complex> out = p.Want<Complex>(inputs[0], inputs[1], inputs[2]);
    double want = 0, got = 0;
    for (size_t i = 0; i < out.size(); ++i) want += dout[i] * out[i].imag() / 1e-30;
    for (double g : direction) got += g * g;
    // Independent errors of at most the tolerance each, weighted by the direction.
    const double tolerance = p.GradientTolerance(which) * std::sqrt(got);
    EXPECT_NEAR(got, want, tolerance);
    EXPECT_GT(want, 5 * tolerance) << "the check could not fail";
  }
}

TEST_P(Attention, ADisturbedInputIsNoticed) {
  test::TestLibraryExec exec(2);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Problem p = Make({{2, 5, 5, 4, 2, 6, 6}, dtype, AttentionMaskType::kCausal});
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    const Doubles q = p.q_.ToDoubles(), k = p.k_.ToDoubles(), v = p.v_.ToDoubles();
    EXPECT_FALSE(
        test::Near(p.out_.ToDoubles(), p.Want(q, k, test::Disturbed(v, 3, 0.5)), p.OutTolerance()));
    EXPECT_FALSE(
        test::Near(p.out_.ToDoubles(), p.Want(q, test::Disturbed(k, 3, 1.0), v), p.OutTolerance()));
    ASSERT_TRUE(test::IsOk(p.Backward(exec)));
    for (int which = 0; which < 3; ++which) {
      const HostTensor* got[3] = {&p.dq_, &p.dk_, &p.dv_};
      const double tolerance = p.GradientTolerance(which);
      EXPECT_FALSE(test::Near(got[which]->ToDoubles(),
                              test::Disturbed(p.WantGradient(which), 2, 2 * tolerance + 0.05),
                              tolerance));
    }
  }
}

TEST_P(Attention, ARowWithoutVisibleKeysIsZeroAndHasNoGradient) {
  test::TestLibraryExec exec(2);
  Problem p = Make({{1, 4, 4, 2, 1, 8, 8}, DType::kBFloat16, AttentionMaskType::kPadding});
  std::fill_n(p.padding_.view().as<uint8_t>(), 4, uint8_t{1});
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  EXPECT_EQ(test::MaxAbs(p.out_.ToDoubles()), 0);
  for (double x : p.lse_.ToDoubles()) EXPECT_EQ(x, -std::numeric_limits<double>::infinity());
  for (const HostTensor* g : {&p.dq_, &p.dk_, &p.dv_}) EXPECT_EQ(test::MaxAbs(g->ToDoubles()), 0);
}

// On CUDA, where threads mean nothing: the same call gives the same bits.
TEST_P(Attention, BitsDoNotDependOnThreads) {
  if (GetParam() == Path::kNondeterministic) GTEST_SKIP() << "they may";
  constexpr AttentionMaskType kPaddingCausal = AttentionMaskType::kPaddingCausal;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Case cases[] = {{{2, 97, 97, 4, 2, 16, 16}, dtype, kPaddingCausal, 50, -1, 0.1f},
                          {{2, 130, 130, 4, 2, 64, 64}, dtype, AttentionMaskType::kCausal}};
    for (const Case& c : cases) {
      SCOPED_TRACE(Describe(c));
      std::vector<uint8_t> first[4];
      for (int threads : {1, 2, 2, 3}) {
        test::TestLibraryExec exec(threads);
        Problem p = Make(c);
        ASSERT_TRUE(test::IsOk(p.Forward(exec)));
        ASSERT_TRUE(test::IsOk(p.Backward(exec)));
        const HostTensor* all[4] = {&p.out_, &p.dq_, &p.dk_, &p.dv_};
        for (int i = 0; i < 4; ++i) {
          if (first[i].empty()) first[i] = all[i]->Bytes();
          EXPECT_EQ(all[i]->Bytes(), first[i]) << threads;
        }
      }
    }
  }
}

TEST_P(Attention, AnArbitraryMaskBroadcastsOverHeads) {
  test::TestLibraryExec exec(2);
  Problem p =
      Make({{2, 9, 70, 4, 2, 16, 16}, DType::kFloat32, AttentionMaskType::kArbitrary, 40, 50});
  p.arbitrary_ = Bits({2, 1, 9, 70}, 8);
  CheckForward(exec, p);
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  const ref::AttentionGradients want = p.WantGradients();
  EXPECT_TRUE(test::Near(p.dq_.ToDoubles(), want.dq, p.GradientTolerance(0)));
  EXPECT_TRUE(test::Near(p.dk_.ToDoubles(), want.dk, p.GradientTolerance(1)));
  EXPECT_TRUE(test::Near(p.dv_.ToDoubles(), want.dv, p.GradientTolerance(2)));
}

TEST_P(Attention, DropoutFollowsTheStepsOffset) {
  test::TestLibraryExec exec(2);
  Problem p =
      Make({{1, 20, 70, 2, 1, 16, 16}, DType::kFloat32, AttentionMaskType::kNoMask, -1, -1, 0.3f});
  CheckForward(exec, p);
  const std::vector<uint8_t> first = p.out_.Bytes();
  ++*p.step_offset_;
  CheckForward(exec, p);
  EXPECT_NE(p.out_.Bytes(), first);
}

// The CPU backend has nothing faster: what it computes is the same to the bit.
TEST_P(Attention, TheCpuIsDeterministicWhateverIsAllowed) {
  if (test::kOnCuda) GTEST_SKIP() << "of the CPU backend";
  const Case c = {{2, 97, 97, 4, 2, 16, 16}, DType::kBFloat16, AttentionMaskType::kCausal};
  test::TestLibraryExec exec(2);
  Problem p = Make(c), allowed(c, Path::kNondeterministic);
  for (Problem* problem : {&p, &allowed}) {
    ASSERT_TRUE(test::IsOk(problem->Forward(exec)));
    ASSERT_TRUE(test::IsOk(problem->Backward(exec)));
  }
  EXPECT_EQ(p.dq_.Bytes(), allowed.dq_.Bytes());
  EXPECT_EQ(p.dk_.Bytes(), allowed.dk_.Bytes());
  EXPECT_EQ(p.dv_.Bytes(), allowed.dv_.Bytes());
}

// The operation's records name what ran, so that a silent fallback cannot hide.
TEST_P(Attention, CudaSaysWhatRan) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU backend keeps no log";
  test::TestLibraryExec exec;
  const struct {
    Case c;
    bool cudnn;
  } cases[] = {
      {{{1, 70, 70, 4, 2, 64, 64}, DType::kBFloat16, AttentionMaskType::kCausal}, true},
      {{{1, 70, 70, 4, 2, 128, 128}, DType::kBFloat16, AttentionMaskType::kNoMask}, true},
      {{{1, 70, 70, 4, 2, 128, 128}, DType::kFloat32, AttentionMaskType::kCausal}, false},
      {{{1, 70, 70, 4, 2, 64, 64}, DType::kBFloat16, AttentionMaskType::kPadding}, false},
  };
  for (const auto& [c, cudnn] : cases) {
    SCOPED_TRACE(Describe(c));
    KernelLog log;
    Exec logging = exec;
    logging.log = &log;
    Problem p = Make(c);
    ASSERT_TRUE(test::IsOk(p.Forward(logging)));
    ASSERT_TRUE(test::IsOk(p.Backward(logging)));
    ASSERT_EQ(log.records().size(), 2u);
    const bool by_cudnn = cudnn && p.path_ != Path::kFallback;
    EXPECT_EQ(log.records()[0].kernel, by_cudnn ? "cudnn_sdpa" : "attention_fallback_cuda");
    const std::string how = p.path_ == Path::kNondeterministic ? "_nondeterministic" : "";
    EXPECT_EQ(log.records()[1].kernel,
              by_cudnn ? "cudnn_sdpa_backward" + how : "attention_fallback_backward_cuda");
  }
}

// No keys: rows of zeros. No queries: nothing but gradients of zero.
TEST_P(Attention, EmptySequences) {
  test::TestLibraryExec exec;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{5, 0}, {0, 5}}) {
      Problem p = Make({{2, queries, keys, 2, 1, 8, 8}, dtype, AttentionMaskType::kNoMask});
      for (HostTensor* t : {&p.out_, &p.lse_, &p.dq_, &p.dk_, &p.dv_})
        test::FromDoubles(Doubles(t->view().elements(), 3.0), *t);
      ASSERT_TRUE(test::IsOk(p.Forward(exec)));
      ASSERT_TRUE(test::IsOk(p.Backward(exec)));
      for (const HostTensor* t : {&p.out_, &p.dq_, &p.dk_, &p.dv_})
        EXPECT_EQ(test::MaxAbs(t->ToDoubles()), 0);
      for (double x : p.lse_.ToDoubles()) EXPECT_EQ(x, -std::numeric_limits<double>::infinity());
    }
  }
}

TEST_P(Attention, EmptyBatchAndBadArguments) {
  test::TestLibraryExec exec;
  Problem empty = Make(Case{{0, 4, 4, 2, 1, 8, 8}});
  EXPECT_TRUE(test::IsOk(empty.Forward(exec)));
  EXPECT_TRUE(test::IsOk(empty.Backward(exec)));
  if (GetParam() == Path::kFallback) return;  // the operation checks the arguments
  Problem p = Make(Case{{1, 4, 4, 4, 3, 8, 8}});
  EXPECT_TRUE(test::FailsWith(p.Forward(exec), StatusCode::kInvalidArgument, "n a multiple of g"));
  Problem no_mask = Make({{2, 4, 4, 2, 1, 8, 8}, DType::kFloat32, AttentionMaskType::kPadding});
  no_mask.padding_ = Bits({1, 4}, 1);
  EXPECT_TRUE(test::FailsWith(no_mask.Forward(exec), StatusCode::kInvalidArgument,
                              "mask type padding needs a padding mask"));
  EXPECT_TRUE(test::FailsWith(ParseAttentionMaskType("diagonal").status(),
                              StatusCode::kInvalidArgument, "'diagonal'"));
  EXPECT_EQ(*ParseAttentionMaskType("padding,causal"), AttentionMaskType::kPaddingCausal);
}

}  // namespace
}  // namespace te
