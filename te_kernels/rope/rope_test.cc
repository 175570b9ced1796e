#include "te_kernels/rope/rope.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/rope/rope_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/quantized_sink.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

struct Case {
  int64_t b, s, n, d, pairs;
  DType dtype;
  bool interleaved;
  int64_t pad;
};

std::vector<Case> Cases() {
  std::vector<Case> out;
  const int64_t shapes[][5] = {{1, 1, 1, 2, 1},   {2, 3, 5, 64, 32}, {1, 7, 2, 80, 40},
                               {2, 2, 3, 23, 7},  {1, 2, 1, 9, 0},   {3, 0, 2, 8, 4},
                               {1, 3, 2, 128, 17}};
  for (const auto& s : shapes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const bool interleaved : {false, true}) {
        out.push_back({s[0], s[1], s[2], s[3], s[4], dtype, interleaved, 0});
        out.push_back({s[0], s[1], s[2], s[3], s[4], dtype, interleaved, 3});
      }
    }
  }
  return out;
}

constexpr int64_t kRows = 12;  // of the tables

struct Problem {
  // Tables of scaled rotations (YaRN), by 1.2.
  explicit Problem(const Case& c)
      : c(c),
        x(HostTensor::Normal(c.dtype, {c.b, c.s, c.n, c.d}, 1, 1, c.pad)),
        cos(DType::kFloat32, {kRows, c.pairs}, c.pad),
        sin(DType::kFloat32, {kRows, c.pairs}, c.pad) {
    Doubles angles = test::UniformDoubles(kRows * c.pairs, 2, -3, 3), cosines, sines;
    for (double a : angles) {
      cosines.push_back(1.2 * std::cos(a));
      sines.push_back(1.2 * std::sin(a));
    }
    test::FromDoubles(cosines, cos);
    test::FromDoubles(sines, sin);
  }

  RopeArgs Args(const TensorView& y) const {
    RopeArgs args;
    args.x = x;
    args.cos = cos;
    args.sin = sin;
    args.interleaved = c.interleaved;
    args.y = Sink(y);
    return args;
  }

  // positions: by b and s.
  Doubles Want(const Doubles& xs, const std::vector<int64_t>& positions, bool inverse) const {
    const Doubles cosines = cos.ToDoubles(), sines = sin.ToDoubles();
    Doubles out;
    for (int64_t i = 0; i < c.b * c.s; ++i) {
      const int64_t p = positions[i] * c.pairs;
      const Doubles row_cos(cosines.begin() + p, cosines.begin() + p + c.pairs);
      Doubles row_sin(sines.begin() + p, sines.begin() + p + c.pairs);
      for (double& v : row_sin) v = inverse ? -v : v;
      for (int64_t n = 0; n < c.n; ++n) {
        const auto head = xs.begin() + (i * c.n + n) * c.d;
        for (double v : ref::Rope(Doubles(head, head + c.d), row_cos, row_sin, c.interleaved))
          out.push_back(v);
      }
    }
    return out;
  }
  std::vector<int64_t> Consecutive(int64_t start) const {
    std::vector<int64_t> out;
    for (int64_t i = 0; i < c.b * c.s; ++i) out.push_back(start + i % c.s);
    return out;
  }
  // Two products and a sum of values up to the largest of x and 1.2, in float32; then one rounding.
  double Tolerance() const {
    const double largest = 2 * 1.2 * test::MaxAbs(x.ToDoubles());
    return largest * (test::UnitRoundoff(c.dtype) + 3 * 0x1p-24);
  }

  Case c;
  HostTensor x, cos, sin;
};

TEST(RopeTest, AgreesWithTheReferenceBothWays) {
  const test::TestExec exec;
  for (const Case& c : Cases()) {
    const Problem p(c);
    const Doubles xs = p.x.ToDoubles();
    for (const bool inverse : {false, true}) {
      const HostTensor y(c.dtype, {c.b, c.s, c.n, c.d}, c.pad);
      RopeArgs args = p.Args(y);
      args.inverse = inverse;
      args.start_position = 4;
      ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
      const auto positions = p.Consecutive(4);
      EXPECT_TRUE(test::Near(y.ToDoubles(), p.Want(xs, positions, inverse), p.Tolerance()));
      EXPECT_TRUE(y.GuardsIntact());
      if (xs.empty()) continue;
      for (const int64_t i : {int64_t{0}, static_cast<int64_t>(xs.size()) - 1}) {
        EXPECT_FALSE(test::Near(
            y.ToDoubles(), p.Want(test::Disturbed(xs, i, 1), positions, inverse), p.Tolerance()));
      }
      if (c.pairs == 0) continue;
      EXPECT_FALSE(test::Near(y.ToDoubles(), p.Want(xs, positions, !inverse), p.Tolerance()));
      EXPECT_FALSE(test::Near(y.ToDoubles(), p.Want(xs, p.Consecutive(3), inverse), p.Tolerance()));
    }
  }
}

// The gradient of a linear map is its transpose: <R x, z> = <x, R' z>, for scaled tables too.
TEST(RopeTest, InverseIsTheGradient) {
  const test::TestExec exec;
  for (const bool interleaved : {false, true}) {
    const Problem p({2, 3, 2, 40, 17, DType::kFloat32, interleaved, 0});
    const Shape shape = {2, 3, 2, 40};
    const HostTensor z = HostTensor::Normal(DType::kFloat32, shape, 9),
                     forward(DType::kFloat32, shape), backward(DType::kFloat32, shape);
    RopeArgs args = p.Args(forward);
    ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
    args.x = z;
    args.inverse = true;
    args.y = Sink(backward);
    ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
    const Doubles xs = p.x.ToDoubles(), zs = z.ToDoubles(), f = forward.ToDoubles(),
                  b = backward.ToDoubles();
    double left = 0, right = 0, size = 0;
    for (size_t i = 0; i < xs.size(); ++i) {
      left += f[i] * zs[i];
      right += xs[i] * b[i];
      size += std::abs(f[i] * zs[i]) + std::abs(xs[i] * b[i]);
    }
    EXPECT_NEAR(left, right, 4 * 0x1p-24 * size);
    EXPECT_GT(std::abs(left - right - f[0] * zs[0]),
              4 * 0x1p-24 * size);  // without one term: not equal
  }
}

TEST(RopeTest, PositionsChooseTheRowsOfTheTables) {
  const test::TestExec exec;
  const Problem p({2, 3, 2, 8, 4, DType::kFloat32, false, 0});
  const std::vector<int64_t> positions = {0, 5, 11, 2, 2, 1};
  const HostTensor index(DType::kInt32, {2, 3}, Doubles(positions.begin(), positions.end()), 1);
  const HostTensor y(DType::kFloat32, {2, 3, 2, 8});
  RopeArgs args = p.Args(y);
  args.positions = index;
  ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
  EXPECT_TRUE(test::Near(y.ToDoubles(), p.Want(p.x.ToDoubles(), positions, false), p.Tolerance()));
  auto other = positions;
  other[1] = 6;
  EXPECT_FALSE(test::Near(y.ToDoubles(), p.Want(p.x.ToDoubles(), other, false), p.Tolerance()));
}

// sbhd memory seen as bshd, and a slice of packed Q, K, V.
TEST(RopeTest, WorksInPlaceOnAnyStrides) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool interleaved : {false, true}) {
      const Problem p({2, 3, 2, 80, 40, dtype, interleaved, 0});
      const HostTensor want(dtype, {2, 3, 2, 80});
      ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, p.Args(want))));
      // [S, B, (q: 2, k: 2, v: 2 heads), d]
      const HostTensor packed(dtype, {3, 2, 6, 80}, Doubles(3 * 2 * 6 * 80, 7.0));
      const TensorView k = packed.view().Slice(2, 2, 4).Transpose(0, 1);
      test::FromDoubles(p.x.ToDoubles(), k);
      RopeArgs args = p.Args(k);
      args.x = k;
      ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
      EXPECT_EQ(test::BytesOf(k), want.Bytes());
      for (const int64_t head : {0, 4}) {
        EXPECT_TRUE(test::Near(test::ToDoubles(packed.view().Slice(2, head, head + 2)),
                               Doubles(3 * 2 * 2 * 80, 7.0), 0));
      }
    }
  }
}

// Heads of the values in a packed Q, K, V: copied, in place left alone.
TEST(RopeTest, HeadsBehindTheRotatedOnesAreCopied) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool interleaved : {false, true}) {
      for (const int64_t pairs : {8, 5, 0}) {  // of heads of 16: some elements are copied anyway
        const Problem p({2, 3, 5, 16, pairs, dtype, interleaved, 0});
        const Shape shape = {2, 3, 5, 16};
        const HostTensor all(dtype, shape), some(dtype, shape), in_place(dtype, shape);
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, p.Args(all))));
        test::FromDoubles(p.x.ToDoubles(), in_place);
        for (const int64_t rotated : {3, 0, 5}) {
          RopeArgs args = p.Args(some);
          args.num_rotated_heads = rotated;
          ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
          EXPECT_EQ(test::BytesOf(some.view().Slice(2, 0, rotated)),
                    test::BytesOf(all.view().Slice(2, 0, rotated)));
          EXPECT_EQ(test::BytesOf(some.view().Slice(2, rotated, 5)),
                    test::BytesOf(p.x.view().Slice(2, rotated, 5)));
          if (pairs == 0 || rotated == 5) continue;
          EXPECT_NE(test::BytesOf(some.view().Slice(2, rotated, 5)),
                    test::BytesOf(all.view().Slice(2, rotated, 5)));
        }
        RopeArgs args = p.Args(in_place);
        args.x = in_place;
        args.num_rotated_heads = 3;
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, [&] {
          RopeArgs apart = p.Args(some);
          apart.num_rotated_heads = 3;
          return apart;
        }())));
        EXPECT_EQ(in_place.Bytes(), some.Bytes());
      }
    }
  }
}

TEST(RopeTest, QuantizedSinksHoldTheQuantizedDenseResult) {
  const test::TestExec exec;
  struct {
    int64_t b, s, n, d, pairs;
    bool fuses;
  } const shapes[] = {{4, 12, 3, 64, 32, true},  {4, 4, 5, 128, 64, true},
                      {10, 8, 3, 32, 16, true},  {16, 1, 9, 16, 8, true},
                      {1, 3, 2, 128, 64, false}, {16, 1, 2, 80, 40, false},
                      {2, 8, 2, 64, 24, false},  {2, 2, 3, 23, 7, false},
                      {3, 0, 2, 16, 8, false},   {2, 8, 3, 256, 128, false}};
  for (const auto& shape : shapes) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      for (const bool interleaved : {false, true}) {
        const Problem p({shape.b, shape.s, shape.n, shape.d, shape.pairs, dtype, interleaved, 0});
        const HostTensor positions(DType::kInt32, {shape.b, shape.s},
                                   test::UniformDoubles(shape.b * shape.s, 5, 0, kRows - 1));
        for (const int64_t rotated : {int64_t{-1}, shape.n - 1}) {
          test::ExpectSinksQuantizeTheDenseResult(
              exec, dtype, {shape.b, shape.s, shape.n, shape.d}, shape.b * shape.s,
              shape.n * shape.d,
              shape.fuses && dtype == DType::kBFloat16 ? "rope_fp8_cuda" : nullptr,
              [&](const Exec& e, const Sink& sink) {
                RopeArgs args = p.Args(TensorView());
                args.num_rotated_heads = rotated;
                args.inverse = rotated >= 0;
                if (rotated >= 0) args.positions = positions;
                args.y = sink;
                return TE_OP(Rope)(e, args);
              });
        }
      }
    }
  }
}

// In place on a packed buffer, and on heads that do not lie side by side.
TEST(RopeTest, QuantizedSinksMayBeInPlaceAndStrided) {
  const test::TestExec exec;
  const Problem p({4, 12, 3, 64, 32, DType::kBFloat16, false, 0});
  const HostTensor y(DType::kBFloat16, {4, 12, 3, 64}), x(DType::kBFloat16, {4, 12, 3, 64}),
      apart(DType::kBFloat16, {4, 12, 3, 64}, 8), packed(DType::kBFloat16, {4, 12, 5, 64});
  const test::QuantizedTensor want({}, 48, 192), twin({}, 48, 192);
  ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, p.Args(y))));
  ASSERT_TRUE(
      test::IsOk(TE_OP(Quantize)(exec, {.x = y.view().Reshape({48, 192}), .out = want.spec()})));
  ASSERT_TRUE(
      test::IsOk(TE_OP(Quantize)(exec, {.x = p.x.view().Reshape({48, 192}), .out = twin.spec()})));
  for (const TensorView& view : {x.view(), apart.view(), packed.view().Slice(2, 1, 4)}) {
    test::FromDoubles(p.x.ToDoubles(), view);
    const test::QuantizedTensor got({}, 48, 192);
    RopeArgs args = p.Args(view);
    args.x = view;
    args.y.quant = got.spec();
    ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
    EXPECT_TRUE(got.Bytes() == want.Bytes());
    EXPECT_FALSE(got.Bytes() == twin.Bytes());
    EXPECT_TRUE(test::BytesOf(view) == y.Bytes());
  }
}

// [S, B, n, d] memory: as the transposed views, and its quantized copies in the memory's order.
TEST(RopeTest, SequenceFirstRotatesByTheOtherDimension) {
  const test::TestExec exec;
  struct {
    int64_t b, s, n, d, pairs;
    bool fuses;
  } const shapes[] = {{4, 12, 3, 64, 32, true}, {12, 4, 5, 128, 64, true}, {2, 3, 5, 23, 7, false}};
  for (const auto& shape : shapes) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      for (const bool given : {false, true}) {
        const Problem p({shape.b, shape.s, shape.n, shape.d, shape.pairs, dtype, false, 0});
        const HostTensor positions(DType::kInt32, {shape.b, shape.s},
                                   test::UniformDoubles(shape.b * shape.s, 5, 0, kRows - 1), 1);
        const Shape turned = {shape.s, shape.b, shape.n, shape.d};
        const HostTensor x(dtype, turned), want(dtype, turned), got(dtype, turned),
            other(dtype, turned);
        test::FromDoubles(p.x.ToDoubles(), x.view().Transpose(0, 1));
        RopeArgs args = p.Args(want.view().Transpose(0, 1));
        if (given) args.positions = positions;
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
        args.x = x;
        args.sequence_first = true;
        args.y = Sink(got);
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
        EXPECT_TRUE(got.Bytes() == want.Bytes());
        // The twin: the positions of the batch's dimension.
        args.sequence_first = false;
        args.positions = ConstTensorView();
        args.y = Sink(other);
        ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
        EXPECT_FALSE(other.Bytes() == want.Bytes());
        test::ExpectSinksQuantizeTheDenseResult(
            exec, dtype, turned, shape.b * shape.s, shape.n * shape.d,
            shape.fuses && dtype == DType::kBFloat16 ? "rope_fp8_cuda" : nullptr,
            [&](const Exec& e, const Sink& sink) {
              RopeArgs sinks = p.Args(TensorView());
              sinks.x = x;
              if (given) sinks.positions = positions;
              sinks.sequence_first = true;
              sinks.y = sink;
              return TE_OP(Rope)(e, sinks);
            });
      }
    }
  }
}

// All codes, NaN and infinities among them: as dequantize, then the rotation.
TEST(RopeTest, CodesAreRotatedAsWhatTheyStandFor) {
  KernelLog log;
  const test::TestExec plain_exec;
  Exec exec = plain_exec;
  exec.log = &log;
  struct {
    int64_t b, s, n, d, pairs;
    bool fuses;
  } const shapes[] = {{4, 12, 5, 64, 32, true}, {8, 10, 3, 128, 64, true},
                      {16, 1, 9, 16, 8, true},  {1, 3, 2, 128, 64, false},
                      {2, 8, 2, 64, 24, false}, {2, 2, 3, 23, 7, false}};
  for (const auto& shape : shapes) {
    const Shape dims = {shape.b, shape.s, shape.n, shape.d};
    const int64_t rows = shape.b * shape.s, columns = shape.n * shape.d;
    const HostTensor codes(DType::kUInt8, dims), scale_inv(DType::kFloat32, {1}, Doubles{0.0371});
    for (int64_t i = 0; i < codes.view().elements(); ++i)
      codes.view().as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 + i / 256);
    for (const auto format : {QuantFormat::kFloat8E4M3, QuantFormat::kFloat8E5M2}) {
      for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
        for (const int variant : {0, 1, 2, 3}) {  // interleaved, heads that are copied
          const Problem p(
              {shape.b, shape.s, shape.n, shape.d, shape.pairs, dtype, variant % 2 == 1, 0});
          const HostTensor values(dtype, dims), dense(dtype, dims), got_dense(dtype, dims),
              other(dtype, dims);
          QuantSpec spec;
          spec.format = format;
          spec.scale_inv = scale_inv.view().as<float>();
          spec.rowwise_data = codes.view().Reshape({rows, columns});
          ASSERT_TRUE(test::IsOk(TE_OP(Dequantize)(
              exec, {.x = spec, .y = Sink(values.view().Reshape({rows, columns}))})));
          RopeArgs args = p.Args(dense);
          args.inverse = variant >= 2;
          if (variant >= 2) args.num_rotated_heads = shape.n - 1;
          RopeArgs of_codes = args;
          args.x = values;
          of_codes.x = codes;
          of_codes.x_format = format;
          of_codes.x_scale_inv = scale_inv.view().as<float>();
          of_codes.x_dtype = dtype;
          ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
          of_codes.y = Sink(got_dense);
          ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, of_codes)));
          EXPECT_TRUE(got_dense.Bytes() == dense.Bytes());
          *scale_inv.view().as<float>() *= 1.01f;  // the twin
          of_codes.y = Sink(other);
          ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, of_codes)));
          EXPECT_FALSE(other.Bytes() == dense.Bytes());
          *scale_inv.view().as<float>() = 0.0371f;
          for (const test::SinkCase& c : test::SinkCases()) {
            SCOPED_TRACE(c.ToString() + ", " + Name(dtype) + " of " + Name(format) + " " +
                         dims.ToString() + " variant " + std::to_string(variant));
            const test::QuantizedTensor want(c, rows, columns), got(c, rows, columns);
            const HostTensor again(dtype, dims);
            args.y = Sink();
            args.y.quant = want.spec();
            ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
            if (c.dense)
              of_codes.y = Sink(again);
            else
              of_codes.y = Sink();
            of_codes.y.quant = got.spec();
            log.Clear();
            ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, of_codes)));
            EXPECT_TRUE(got.Bytes() == want.Bytes());
            EXPECT_TRUE(got.GuardsIntact() && again.GuardsIntact());
            if (c.dense) {
              EXPECT_TRUE(again.Bytes() == dense.Bytes());
            }
            if (!test::kOnCuda) continue;
            const bool fuses = shape.fuses && c.CanFuse() && dtype == DType::kBFloat16;
            ASSERT_EQ(log.records().size(), fuses ? 1u : 3u);
            EXPECT_EQ(log.records()[0].kernel, fuses ? "rope_fp8_cuda" : "dequantize_cuda");
          }
        }
      }
    }
  }
}

TEST(RopeTest, ThreadsAndRepetitionDoNotChangeABit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Problem p({9, 11, 8, 64, 32, dtype, false, 0});
    const Shape shape = {9, 11, 8, 64};
    const HostTensor y(dtype, shape);
    ASSERT_TRUE(test::IsOk(TE_OP(Rope)(test::TestExec(1), p.Args(y))));
    for (int repeat = 0; repeat < 2; ++repeat) {
      const HostTensor again(dtype, shape);
      ASSERT_TRUE(test::IsOk(TE_OP(Rope)(test::TestExec(2), p.Args(again))));
      EXPECT_EQ(again.Bytes(), y.Bytes());
    }
  }
}

TEST(RopeTest, RefusesPositionsOutsideTheTableAndTouchesNothing) {
  const test::TestExec exec;
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const Problem p({1, 3, 1, 8, 4, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {1, 3, 1, 8});
  const auto before = y.Bytes();
  RopeArgs args = p.Args(y);
  args.start_position = kRows - 2;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "start_position 10;"));
  args.start_position = -1;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "start_position -1;"));
  args.start_position = INT64_MAX;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "3 positions"));
  const HostTensor high(DType::kInt32, {1, 3}, {0, 12, 1}), low(DType::kInt32, {1, 3}, {0, 1, -1});
  args = p.Args(y);
  args.positions = high;
  if (test::kOnCuda) {  // the head becomes NaN, and nothing is read outside the table
    ASSERT_TRUE(test::IsOk(TE_OP(Rope)(exec, args)));
    const std::vector<double> got = y.ToDoubles();
    for (size_t i = 0; i < 24; ++i) EXPECT_EQ(std::isnan(got[i]), i / 8 == 1) << i;
    return;
  }
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "positions[0, 1] is 12"));
  args.positions = low;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "positions[0, 2] is -1"));
  EXPECT_EQ(y.Bytes(), before);
}

TEST(RopeTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const Problem p({1, 3, 1, 8, 4, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {1, 3, 1, 8}), wide(DType::kFloat32, {kRows, 5}),
      index(DType::kInt32, {3, 1}), half(DType::kBFloat16, {kRows, 4});
  RopeArgs args = p.Args(y);
  args.cos = wide;
  args.sin = wide;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "rotates 10 elements"));
  args = p.Args(y);
  args.sin = wide;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "sin is"));
  args = p.Args(y);
  args.cos = half;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "cos is bfloat16"));
  args = p.Args(y);
  args.positions = index;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "positions is int32 [3, 1]"));
  args = p.Args(wide);
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "y is"));
  args = p.Args(y);
  args.num_rotated_heads = 2;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "num_rotated_heads is 2"));
  args.num_rotated_heads = -2;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "num_rotated_heads is -2"));
  args = p.Args(y);
  args.y = Sink();
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "y is nothing"));
  args.y.quant.format = QuantFormat::kFloat8E4M3;
  args.y.quant.rowwise_data = y;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "y's rowwise data is float32"));
  const HostTensor codes(DType::kUInt8, {1, 3, 1, 8}), strided(DType::kUInt8, {1, 3, 1, 8}, 8);
  const auto of_codes = [&](const TensorView& x) {
    RopeArgs out = p.Args(y);
    out.x = x;
    out.x_format = QuantFormat::kFloat8E5M2;
    out.x_scale_inv = y.view().as<float>();
    out.x_dtype = DType::kFloat32;
    return out;
  };
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, of_codes(y)), kBad, "expected dense uint8 codes"));
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, of_codes(strided)), kBad, "x is uint8"));
  args = of_codes(codes);
  args.x_format = QuantFormat::kFloat4E2M1;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "x_format is e2m1"));
  args = of_codes(codes);
  args.x_scale_inv = nullptr;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "x_scale_inv is null"));
  args = of_codes(codes);
  args.x_dtype = DType::kInt32;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "x_dtype is int32"));
  args = of_codes(codes);
  args.x_dtype = DType::kBFloat16;
  EXPECT_TRUE(test::FailsWith(TE_OP(Rope)(exec, args), kBad, "y is float32"));
}

}  // namespace
}  // namespace te
