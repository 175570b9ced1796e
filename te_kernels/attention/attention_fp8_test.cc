#include "te_kernels/attention/attention_fp8.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/attention/attention_ref.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"
#ifndef TE_TEST_CUDA
#include "te_kernels/gemm/onednn_exec.h"
#endif

namespace te {
namespace {

using Doubles = std::vector<double>;
using ref::AttentionShape;
using test::HostTensor;

constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3;
constexpr QuantFormat kE5M2 = QuantFormat::kFloat8E5M2;

struct Case {
  AttentionShape s;
  AttentionMaskType type = AttentionMaskType::kCausal;
  QuantFormat gradients = kE5M2;
  int64_t pad = 0;
};

std::vector<Case> Cases() {
  std::vector<Case> out;
  for (AttentionMaskType type : {AttentionMaskType::kNoMask, AttentionMaskType::kCausal,
                                 AttentionMaskType::kPadding, AttentionMaskType::kPaddingCausal})
    out.push_back({{2, 64, 64, 2, 1, 128, 128}, type});
  out.push_back({{1, 160, 160, 2, 2, 128, 128}, AttentionMaskType::kCausal, kE4M3});
  if (test::kOnCuda) return out;
  out.push_back({{2, 70, 70, 4, 1, 64, 64}, AttentionMaskType::kCausal, kE5M2, 3});
  out.push_back({{1, 33, 140, 2, 1, 20, 20}, AttentionMaskType::kNoMask, kE5M2, 5});
  return out;
}

std::string Describe(const Case& c) {
  return fmt::format("{} B{} Sq{} Skv{} n{} g{} d{} {} pad {}", Name(c.type), c.s.batch,
                     c.s.queries, c.s.keys, c.s.heads, c.s.groups, c.s.head_dim, Name(c.gradients),
                     c.pad);
}

// A tensor of codes with what its operation reads and writes beside them.
class Codes {
 public:
  // To be written. `largest`: about the largest value that it will hold.
  Codes(QuantFormat format, const Shape& shape, double largest, int64_t pad)
      : format_(format), codes_(DType::kUInt8, shape, pad) {
    *scale_ = static_cast<float>(static_cast<double>(QuantMax(format)) / largest);
  }
  static Codes Random(QuantFormat format, const Shape& shape, uint64_t seed, int64_t pad) {
    Codes out(format, shape, 4.5, pad);
    Doubles codes;
    for (const double x : test::NormalDoubles(shape.elements(), seed)) {
      const float scaled = static_cast<float>(x) * out.scale();
      codes.push_back(format == kE4M3 ? FloatToFloat8E4M3Bits(scaled)
                                      : FloatToFloat8E5M2Bits(scaled));
    }
    test::FromDoubles(codes, out.codes_);
    out.scale_inv() = 1.0f / out.scale();
    return out;
  }

  Float8Input Input() const { return {.codes = codes_, .scale_inv = scale_inv_.get()}; }
  Float8Output Output() const {
    return {
        .codes = codes_, .scale = scale_.get(), .scale_inv = scale_inv_.get(), .amax = amax_.get()};
  }
  Doubles Values() const {
    Doubles out = codes_.ToDoubles();
    const auto& values = format_ == kE4M3 ? kFloat8E4M3Values : kFloat8E5M2Values;
    for (double& x : out)
      x = static_cast<double>(values[static_cast<size_t>(x)]) * static_cast<double>(*scale_inv_);
    return out;
  }
  std::vector<uint8_t> Bytes() const { return codes_.Bytes(); }
  bool GuardsIntact() const { return codes_.GuardsIntact(); }
  float& scale() { return *scale_; }
  float& scale_inv() { return *scale_inv_; }
  float& amax() { return *amax_; }

 private:
  QuantFormat format_;
  HostTensor codes_;
  test::Shared<float> scale_{1.0f}, scale_inv_{1.0f}, amax_{0.0f};
};

class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        q_(Codes::Random(kE4M3, QShape(), 1, c.pad)),
        k_(Codes::Random(kE4M3, KShape(), 2, c.pad)),
        v_(Codes::Random(kE4M3, KShape(), 3, c.pad)),
        dout_(Codes::Random(c.gradients, QShape(), 4, c.pad)),
        out_(kE4M3, QShape(), 4.5, c.pad),
        dq_(c.gradients, QShape(), 8.0, c.pad),
        dk_(c.gradients, KShape(), 8.0, c.pad),
        dv_(c.gradients, KShape(), 16.0, c.pad),
        lse_(DType::kFloat32, {c.s.batch, c.s.heads, c.s.queries}),
        padding_(DType::kUInt8, {c.s.batch, c.s.keys}) {
    *scale_s_ = 448.0f;
    *scale_dp_ = QuantMax(c.gradients) / 4.0f;
    // Sequence b has 7 (b + 1) keys less.
    Doubles padding;
    for (int64_t b = 0; b < c.s.batch; ++b)
      for (int64_t j = 0; j < c.s.keys; ++j) padding.push_back(j < c.s.keys - 7 * (b + 1) ? 0 : 1);
    test::FromDoubles(padding, padding_);
  }

  Status Forward(const Exec& exec) {
    return TE_OP(AttentionFp8Forward)(exec, {.q = q_.Input(),
                                             .k = k_.Input(),
                                             .v = v_.Input(),
                                             .mask = mask_.value_or(Mask()),
                                             .softmax_scale = Scale(),
                                             .s = {.scale = scale_s_.get(), .amax = amax_s_.get()},
                                             .out = out_.Output(),
                                             .lse = lse_});
  }
  Status Backward(const Exec& exec) {
    return TE_OP(AttentionFp8Backward)(exec,
                                       {.q = q_.Input(),
                                        .k = k_.Input(),
                                        .v = v_.Input(),
                                        .out = out_.Input(),
                                        .dout = dout_.Input(),
                                        .lse = lse_,
                                        .mask = mask_.value_or(Mask()),
                                        .softmax_scale = Scale(),
                                        .gradient_format = c_.gradients,
                                        .s = {.scale = scale_s_.get()},
                                        .dp = {.scale = scale_dp_.get(), .amax = amax_dp_.get()},
                                        .dq = dq_.Output(),
                                        .dk = dk_.Output(),
                                        .dv = dv_.Output()});
  }

  AttentionMask Mask() const {
    return {.type = c_.type, .padding = padding_, .padding_on_the_right = true};
  }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(c_.s.head_dim)); }
  Doubles WantOut(Doubles* lse) const {
    return ref::Attention<double>(c_.s, q_.Values(), k_.Values(), v_.Values(), Mask(), Scale(), 0,
                                  {}, lse);
  }
  ref::AttentionGradients WantGradients() const {
    return ref::AttentionBackward(c_.s, q_.Values(), k_.Values(), v_.Values(), dout_.Values(),
                                  Mask(), Scale(), 0, {});
  }
  Shape QShape() const { return {c_.s.batch, c_.s.queries, c_.s.heads, c_.s.head_dim}; }
  Shape KShape() const { return {c_.s.batch, c_.s.keys, c_.s.groups, c_.s.head_dim}; }

  Case c_;
  Codes q_, k_, v_, dout_, out_, dq_, dk_, dv_;
  HostTensor lse_, padding_;
  test::Shared<float> scale_s_, scale_dp_, amax_s_, amax_dp_;
  std::optional<AttentionMask> mask_;  // instead of the case's
};

// The root mean square of the relative error of rounding to a format whose half unit in the last
// place is u at 1: with mantissas m spread evenly over [1, 2), u / sqrt(3) * sqrt(E[1 / m^2] =
// 1/2).
double RoundingError(QuantFormat format) {
  return (format == kE5M2 ? 0x1p-3 : 0x1p-4) / std::sqrt(6.0);
}

// Two roundings in a row, of a sum's terms and of the sum, doubled. The roundings of the terms are
// independent, so that the sum's relative error is that of a term.
double Limit(QuantFormat first, QuantFormat second) {
  return 2 * std::hypot(RoundingError(first), RoundingError(second));
}

// ||a - b|| / ||b||.
double RelativeError(const Doubles& a, const Doubles& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

void ExpectTheReference(const Exec& exec) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(Describe(c));
    Problem p(c);
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    ASSERT_TRUE(test::IsOk(p.Backward(exec)));
    Doubles lse;
    const Doubles out = p.WantOut(&lse);
    EXPECT_LT(RelativeError(p.out_.Values(), out), Limit(kE4M3, kE4M3));
    const ref::AttentionGradients want = p.WantGradients();
    const double through_ds = Limit(c.gradients, c.gradients);
    EXPECT_LT(RelativeError(p.dq_.Values(), want.dq), through_ds);
    EXPECT_LT(RelativeError(p.dk_.Values(), want.dk), through_ds);
    EXPECT_LT(RelativeError(p.dv_.Values(), want.dv), Limit(kE4M3, c.gradients));
    for (const Codes* t : {&p.out_, &p.dq_, &p.dk_, &p.dv_}) EXPECT_TRUE(t->GuardsIntact());
    // A score is a sum of d terms, on the GPU in registers of 14 bits; |score| <= 32 here.
    constexpr double kScores = 32 * 0x1p-13;
    EXPECT_TRUE(test::Near(p.lse_.ToDoubles(), lse, kScores));

    // The twin: what the limits must not let through.
    p.v_.scale_inv() *= 1.25f;
    EXPECT_GT(RelativeError(p.out_.Values(), p.WantOut(nullptr)), Limit(kE4M3, kE4M3));
    p.v_.scale_inv() /= 1.25f;
    p.dout_.scale_inv() *= 1.25f;
    const ref::AttentionGradients wrong = p.WantGradients();
    EXPECT_GT(RelativeError(p.dq_.Values(), wrong.dq), through_ds);
    EXPECT_GT(RelativeError(p.dk_.Values(), wrong.dk), through_ds);
    EXPECT_GT(RelativeError(p.dv_.Values(), wrong.dv), Limit(kE4M3, c.gradients));
  }
}

TEST(AttentionFp8, AgreesWithTheReferenceOfTheCodes) {
  test::TestLibraryExec exec(2);
  ExpectTheReference(exec);
}

TEST(AttentionFp8, AgreesWithTheReferenceWithoutDeterminism) {
  test::TestLibraryExec exec(2);
  Exec allowing = exec;
  allowing.allow_nondeterministic = true;
  ExpectTheReference(allowing);
}

// Heads as slices of one buffer, a row a token, as a layer's rotation writes and reads them. cuDNN
// may choose another engine for them, whose sums round in another order.
TEST(AttentionFp8, SlicesOfPackedBuffersHoldTheSame) {
  test::TestLibraryExec exec(2);
  for (const bool sequence_first : {false, true}) {
    for (const Case& c : Cases()) {
      if (c.s.queries != c.s.keys) continue;
      SCOPED_TRACE(Describe(c) + (sequence_first ? " sbhd" : " bshd"));
      Problem p(c);
      ASSERT_TRUE(test::IsOk(p.Forward(exec)));
      ASSERT_TRUE(test::IsOk(p.Backward(exec)));
      const int64_t heads = c.s.heads + 2 * c.s.groups;
      const Shape shape = sequence_first ? Shape{c.s.queries, c.s.batch, heads, c.s.head_dim}
                                         : Shape{c.s.batch, c.s.queries, heads, c.s.head_dim};
      const HostTensor packed(DType::kUInt8, shape), gradients(DType::kUInt8, shape);
      const auto slice = [&](const HostTensor& t, int64_t begin, int64_t count) {
        const TensorView view = t.view();
        return (sequence_first ? view.Transpose(0, 1) : view).Slice(2, begin, begin + count);
      };
      const int64_t n = c.s.heads, g = c.s.groups;
      const auto input = [&](const Codes& codes, int64_t begin, int64_t count) {
        const TensorView to = slice(packed, begin, count);
        test::FromDoubles(test::ToDoubles(codes.Input().codes), to);
        return Float8Input{.codes = to, .scale_inv = codes.Input().scale_inv};
      };
      const Float8Input q = input(p.q_, 0, n), k = input(p.k_, n, g), v = input(p.v_, n + g, g);
      const auto output = [&](const Codes& codes, int64_t begin, int64_t count) {
        Float8Output out = codes.Output();
        out.codes = slice(gradients, begin, count);
        return out;
      };
      const Codes out(kE4M3, p.QShape(), 4.5, 0);
      const HostTensor lse(DType::kFloat32, {c.s.batch, n, c.s.queries});
      ASSERT_TRUE(test::IsOk(TE_OP(AttentionFp8Forward)(exec, {.q = q,
                                                               .k = k,
                                                               .v = v,
                                                               .mask = p.Mask(),
                                                               .softmax_scale = p.Scale(),
                                                               .s = {.scale = p.scale_s_.get()},
                                                               .out = out.Output(),
                                                               .lse = lse})));
      const Float8Output dq = output(p.dq_, 0, n), dk = output(p.dk_, n, g),
                         dv = output(p.dv_, n + g, g);
      ASSERT_TRUE(test::IsOk(TE_OP(AttentionFp8Backward)(exec, {.q = q,
                                                                .k = k,
                                                                .v = v,
                                                                .out = p.out_.Input(),
                                                                .dout = p.dout_.Input(),
                                                                .lse = p.lse_,
                                                                .mask = p.Mask(),
                                                                .softmax_scale = p.Scale(),
                                                                .gradient_format = c.gradients,
                                                                .s = {.scale = p.scale_s_.get()},
                                                                .dp = {.scale = p.scale_dp_.get()},
                                                                .dq = dq,
                                                                .dk = dk,
                                                                .dv = dv})));
      const auto same = [&](const ConstTensorView& got, QuantFormat format, const Codes& want) {
        if (!test::kOnCuda) {
          EXPECT_EQ(test::ToDoubles(got), test::ToDoubles(want.Input().codes));
          return;
        }
        // A code that is rounded the other way is one rounding off.
        Doubles values = test::ToDoubles(got), wanted = test::ToDoubles(want.Input().codes);
        const auto& of_codes = format == kE4M3 ? kFloat8E4M3Values : kFloat8E5M2Values;
        for (Doubles* d : {&values, &wanted})
          for (double& x : *d) x = static_cast<double>(of_codes[static_cast<size_t>(x)]);
        EXPECT_LT(RelativeError(values, wanted), RoundingError(format));
        for (double& x : wanted) x *= 1 + 2 * RoundingError(format);
        EXPECT_GT(RelativeError(values, wanted), RoundingError(format));
      };
      same(out.Input().codes, kE4M3, p.out_);
      same(dq.codes, c.gradients, p.dq_);
      same(dk.codes, c.gradients, p.dk_);
      same(dv.codes, c.gradients, p.dv_);
      EXPECT_TRUE(packed.GuardsIntact() && gradients.GuardsIntact());
    }
  }
}

// Each amax is that of the values before their rounding, and adds to what stands there.
TEST(AttentionFp8, AmaxesAreThoseOfTheValuesAndAccumulate) {
  test::TestLibraryExec exec(2);
  for (const Case& c : Cases()) {
    SCOPED_TRACE(Describe(c));
    Problem p(c);
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    ASSERT_TRUE(test::IsOk(p.Backward(exec)));
    const double largest_v = test::MaxAbs(p.v_.Values());
    // p's rounding: half a unit, or half of the smallest step below the normal numbers.
    const double p_error = 0x1p-4 + static_cast<double>(c.s.keys) * 0x1p-10 / 448;
    EXPECT_NEAR(p.out_.amax(), test::MaxAbs(p.WantOut(nullptr)), p_error * largest_v);
    if (IsCausal(c.type)) {
      EXPECT_NEAR(*p.amax_s_, 1, 1e-5);  // the first query sees one key
    } else {
      EXPECT_GT(*p.amax_s_, 1.0 / static_cast<double>(c.s.keys));
      EXPECT_LT(*p.amax_s_, 1 + 1e-5);
    }
    const ref::AttentionGradients want = p.WantGradients();
    // |error| <= ||error||: of single elements nothing better is known.
    const auto near = [](double got, const Doubles& values, double limit) {
      double norm = 0;
      for (const double x : values) norm += x * x;
      EXPECT_NEAR(got, test::MaxAbs(values), limit * std::sqrt(norm));
      EXPECT_GT(got, 0);
    };
    near(p.dq_.amax(), want.dq, RoundingError(c.gradients));
    near(p.dk_.amax(), want.dk, RoundingError(c.gradients));
    near(p.dv_.amax(), want.dv, RoundingError(kE4M3));
    EXPECT_GT(*p.amax_dp_, 0);
    const float amaxes[] = {*p.amax_s_,   p.out_.amax(), *p.amax_dp_,
                            p.dq_.amax(), p.dk_.amax(),  p.dv_.amax()};
    float* const at[] = {p.amax_s_.get(), &p.out_.amax(), p.amax_dp_.get(),
                         &p.dq_.amax(),   &p.dk_.amax(),  &p.dv_.amax()};
    for (int i = 0; i < 6; ++i) *at[i] = i % 2 == 0 ? 1e6f : amaxes[i] / 2;
    ASSERT_TRUE(test::IsOk(p.Forward(exec)));
    ASSERT_TRUE(test::IsOk(p.Backward(exec)));
    for (int i = 0; i < 6; ++i) EXPECT_EQ(*at[i], i % 2 == 0 ? 1e6f : amaxes[i]) << i;
    EXPECT_EQ(p.out_.scale_inv(), 1.0f / p.out_.scale());
    EXPECT_EQ(p.dk_.scale_inv(), 1.0f / p.dk_.scale());
  }
}

// dP's amax is that of p * (dp - D) * softmax_scale: one query, two keys, one head, by hand.
TEST(AttentionFp8, TheGradientOfTheScoresIncludesTheirScale) {
  if (test::kOnCuda) GTEST_SKIP() << "head_dim 1";
  test::TestLibraryExec exec(1);
  Problem p(Case{{1, 1, 2, 1, 1, 1, 1}, AttentionMaskType::kNoMask});
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  const Doubles q = p.q_.Values(), k = p.k_.Values(), v = p.v_.Values(), dout = p.dout_.Values();
  const double p0 = 1 / (1 + std::exp((k[1] - k[0]) * q[0]));
  const double d = dout[0] * p.out_.Values()[0];
  const double want =
      std::max(std::abs(p0 * (dout[0] * v[0] - d)), std::abs((1 - p0) * (dout[0] * v[1] - d)));
  EXPECT_NEAR(*p.amax_dp_, want, 1e-5 * want);
}

// With scales that take p, and ds, below the smallest code, nothing is left of what they multiply.
TEST(AttentionFp8, TheScalesOfInnerTensorsAreUsed) {
  if (test::kOnCuda) GTEST_SKIP() << "cuDNN rounds p before it is normalized";
  test::TestLibraryExec exec(2);
  Problem p(Cases().front());
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  *p.scale_dp_ = 0x1p-60f;
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  EXPECT_EQ(test::MaxAbs(p.dq_.Values()), 0);
  EXPECT_EQ(test::MaxAbs(p.dk_.Values()), 0);
  EXPECT_GT(test::MaxAbs(p.dv_.Values()), 0);
  *p.scale_s_ = 0x1p-40f;
  ASSERT_TRUE(test::IsOk(p.Backward(exec)));
  EXPECT_EQ(test::MaxAbs(p.dv_.Values()), 0);
  ASSERT_TRUE(test::IsOk(p.Forward(exec)));
  EXPECT_EQ(test::MaxAbs(p.out_.Values()), 0);
}

// On CUDA, where threads mean nothing: the same call gives the same bits.
TEST(AttentionFp8, BitsDoNotDependOnThreads) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(Describe(c));
    std::vector<uint8_t> first[4];
    float amaxes[4] = {};
    for (int threads : {1, 2, 2, 3}) {
      test::TestLibraryExec exec(threads);
      Problem p(c);
      ASSERT_TRUE(test::IsOk(p.Forward(exec)));
      ASSERT_TRUE(test::IsOk(p.Backward(exec)));
      Codes* all[4] = {&p.out_, &p.dq_, &p.dk_, &p.dv_};
      for (int i = 0; i < 4; ++i) {
        if (first[i].empty()) {
          first[i] = all[i]->Bytes();
          amaxes[i] = all[i]->amax();
        }
        EXPECT_EQ(all[i]->Bytes(), first[i]) << threads;
        EXPECT_EQ(all[i]->amax(), amaxes[i]) << threads;
      }
    }
  }
}

TEST(AttentionFp8, CudaSaysWhatRan) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU backend keeps no log";
  test::TestLibraryExec exec;
  KernelLog log;
  Exec logging = exec;
  logging.log = &log;
  Problem p(Cases().front());
  ASSERT_TRUE(test::IsOk(p.Forward(logging)));
  ASSERT_TRUE(test::IsOk(p.Backward(logging)));
  logging.allow_nondeterministic = true;
  ASSERT_TRUE(test::IsOk(p.Forward(logging)));
  ASSERT_TRUE(test::IsOk(p.Backward(logging)));
  ASSERT_EQ(log.records().size(), 4u);
  EXPECT_EQ(log.records()[0].kernel, "cudnn_sdpa_fp8");
  EXPECT_EQ(log.records()[1].kernel, "cudnn_sdpa_fp8_backward");
  EXPECT_EQ(log.records()[2].kernel, "cudnn_sdpa_fp8");
  EXPECT_EQ(log.records()[3].kernel, "cudnn_sdpa_fp8_backward_nondeterministic");
}

TEST(AttentionFp8, WhatItDoesNotTakeIsNamed) {
  test::TestLibraryExec exec;
  const auto refused = [&](Problem& p, StatusCode code, const char* part) {
    EXPECT_TRUE(test::FailsWith(p.Forward(exec), code, part));
    EXPECT_TRUE(test::FailsWith(p.Backward(exec), code, part));
  };
  Problem p(Case{{1, 16, 16, 2, 1, 128, 128}});
  p.mask_ = AttentionMask{.type = AttentionMaskType::kCausalBottomRight};
  refused(p, StatusCode::kUnsupported, "mask type is causal_bottom_right; expected no_mask");
  p.mask_ = AttentionMask{.type = AttentionMaskType::kCausal, .window_left = 3};
  refused(p, StatusCode::kUnsupported, "the window is (3, -1); expected none");
  p.mask_ = AttentionMask{.type = AttentionMaskType::kPadding};
  refused(p, StatusCode::kInvalidArgument, "padding mask");
  Problem groups(Case{{1, 16, 16, 4, 3, 128, 128}});
  refused(groups, StatusCode::kInvalidArgument, "n a multiple of g");
  Problem empty(Case{{1, 0, 16, 2, 1, 128, 128}});
  refused(empty, StatusCode::kUnsupported, "at least one token");
  Problem format(Case{{1, 16, 16, 2, 1, 128, 128}});
  format.c_.gradients = QuantFormat::kFloat4E2M1;
  EXPECT_TRUE(test::FailsWith(format.Backward(exec), StatusCode::kInvalidArgument,
                              "gradient_format is e2m1; expected e4m3 or e5m2"));
  if (!test::kOnCuda) return;
  Problem narrow(Case{{1, 16, 16, 2, 1, 64, 64}});
  refused(narrow, StatusCode::kUnsupported, "head_dim is 64; expected 128");
  Problem left(Case{{1, 16, 16, 2, 1, 128, 128}});
  left.mask_ = AttentionMask{.type = AttentionMaskType::kPadding, .padding = left.padding_};
  refused(left, StatusCode::kUnsupported, "expected padding_on_the_right");
}

}  // namespace
}  // namespace te
