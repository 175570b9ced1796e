// What the norms' tests share: backward of many rows at once gives what it gives of few at a time.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te::test {

struct ManyRowsCase {
  int64_t tokens, hidden;
  DType dtype;
};

// On CUDA rows come through rings: more than twice as many as these hold on 132 multiprocessors, in
// each of the rings' forms. `longest`: float32's.
inline std::vector<ManyRowsCase> ManyRowsCases(const ManyRowsCase& longest) {
  if (!kOnCuda) return {{130, 520, DType::kBFloat16}, {130, 24, DType::kFloat32}};
  return {{9'000, 520, DType::kBFloat16},  {6'500, 2048, DType::kBFloat16},
          {3'200, 4096, DType::kBFloat16}, {1'600, 8192, DType::kBFloat16},
          {3'200, 2048, DType::kFloat32},  longest};
}

inline std::string NameOf(const testing::TestParamInfo<ManyRowsCase>& info) {
  return fmt::format("{}_{}x{}", Name(info.param.dtype), info.param.tokens, info.param.hidden);
}

// One call of a backward operation, on `begin` and the rows behind it.
struct NormBackwardCall {
  ConstTensorView x, dy, gamma, mean, rstd;
  ConstTensorView add;  // may be undefined
  TensorView dx;
  std::vector<TensorView> gradients;  // of the parameters, float32
  bool accumulate;
};

// `run`: makes the call, returns its Status. num_gradients: 1 for dgamma, 2 with dbeta behind it.
// largest_term: of their sums, where |x|, |dy| <= 1, |mean| <= 0.5, rstd <= 1.5.
template <typename Run>
void ExpectManyRowsAreWhatFewAre(const ManyRowsCase& c, size_t num_gradients, double largest_term,
                                 Run run) {
  constexpr int64_t kPad = 16, kFew = 100;
  const int64_t tokens = c.tokens, hidden = c.hidden;
  const HostTensor rows = HostTensor::Uniform(c.dtype, {tokens + 1, hidden}, 1, -1, 1, kPad),
                   add = HostTensor::Uniform(c.dtype, {tokens, hidden}, 2, -1, 1, kPad),
                   gamma = HostTensor::Uniform(c.dtype, {hidden}, 3, 0.5, 1.5),
                   rstd = HostTensor::Uniform(DType::kFloat32, {tokens}, 4, 0.5, 1.5),
                   mean = HostTensor::Uniform(DType::kFloat32, {tokens}, 5, -0.5, 0.5);
  const TensorView x = rows.view().Slice(0, 0, tokens), dy = rows.view().Slice(0, 1, tokens + 1);
  const auto new_gradients = [&] {
    std::vector<HostTensor> out;
    for (size_t i = 0; i < num_gradients; ++i) out.emplace_back(DType::kFloat32, Shape{hidden});
    return out;
  };
  for (const bool with_add : {false, true}) {
    const HostTensor dx(c.dtype, {tokens, hidden}, kPad), few(c.dtype, {tokens, hidden}, kPad);
    const std::vector<HostTensor> gradients = new_gradients(), few_gradients = new_gradients();
    const std::vector<TensorView> views(gradients.begin(), gradients.end()),
        few_views(few_gradients.begin(), few_gradients.end());
    for (int64_t begin = 0; begin < tokens; begin += kFew) {
      const auto part = [begin, end = std::min(begin + kFew, tokens)](const TensorView& of) {
        return of.Slice(0, begin, end);
      };
      ASSERT_TRUE(IsOk(run({.x = part(x),
                            .dy = part(dy),
                            .gamma = gamma,
                            .mean = part(mean),
                            .rstd = part(rstd),
                            .add = with_add ? part(add) : TensorView(),
                            .dx = part(few),
                            .gradients = few_views,
                            .accumulate = true})));
    }
    NormBackwardCall call = {.x = x,
                             .dy = dy,
                             .gamma = gamma,
                             .mean = mean,
                             .rstd = rstd,
                             .add = with_add ? add.view() : TensorView(),
                             .dx = dx,
                             .gradients = views,
                             .accumulate = false};
    ASSERT_TRUE(IsOk(run(call)));
    EXPECT_TRUE(dx.Bytes() == few.Bytes());
    EXPECT_TRUE(dx.GuardsIntact());
    // Each sum's terms pass through fewer than 256 additions.
    const double tolerance = 2 * 256 * 0x1p-24 * largest_term * static_cast<double>(tokens);
    for (size_t i = 0; i < num_gradients; ++i) {
      const std::vector<double> got = gradients[i].ToDoubles(), want = few_gradients[i].ToDoubles();
      EXPECT_TRUE(Near(got, want, tolerance));
      EXPECT_FALSE(Near(got, Disturbed(want, hidden - 1, 1), tolerance));
    }
    // In place of dy, and of add.
    call.gradients = few_views;
    const auto expect_same = [&](const HostTensor& in_place) {
      call.dx = in_place;
      ASSERT_TRUE(IsOk(run(call)));
      EXPECT_TRUE(in_place.Bytes() == dx.Bytes());
      for (size_t i = 0; i < num_gradients; ++i)
        EXPECT_TRUE(few_gradients[i].Bytes() == gradients[i].Bytes());
    };
    const HostTensor dy_copy(c.dtype, {tokens, hidden}, kPad);
    FromDoubles(ToDoubles(dy), dy_copy);
    call.dy = dy_copy;
    expect_same(dy_copy);
    call.dy = dy;
    if (with_add) expect_same(add);
  }
}

}  // namespace te::test
