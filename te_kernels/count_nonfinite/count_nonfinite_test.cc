#include "te_kernels/count_nonfinite/count_nonfinite.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/count_nonfinite/count_nonfinite_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::TestExec;

constexpr DType kTargets[] = {DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// Around every edge, of either sign: the neighbours of the largest numbers of each dtype and of
// halfway beyond them, infinities, NaNs, subnormals.
std::vector<double> Edges() {
  std::vector<double> out = {0.0, 1.0, HUGE_VAL, std::nan("")};
  for (const float center :
       {65504.0f, 65520.0f, std::bit_cast<float>(0x7f7f0000u), std::bit_cast<float>(0x7f7f8000u),
        std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min()}) {
    for (int64_t by = -2; by <= 2; ++by) {
      const float value = std::bit_cast<float>(
          static_cast<uint32_t>(static_cast<int64_t>(std::bit_cast<uint32_t>(center)) + by));
      out.push_back(value);
    }
  }
  for (size_t i = out.size(); i-- > 0;) out.push_back(-out[i]);
  return out;
}

std::vector<float> FloatsOf(const ConstTensorView& x) {
  const std::vector<double> values = test::ToDoubles(x);
  return {values.begin(), values.end()};
}

TEST(CountNonfiniteTest, CountsWhatTheConversionMakesNoNumber) {
  const std::vector<double> edges = Edges();
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    // Lengths around a vector of 16 bytes, a block's chunk and several blocks; any address.
    for (const int64_t n : {0, 1, 7, 8, 9, 300, 8192, 8191, 200'003}) {
      std::vector<double> values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) {
        // The edges stand at both ends and scattered between.
        const bool end = i < 40 || i + 40 >= values.size();
        values[i] = end || i % 97 == 0 ? edges[i * 7 % edges.size()] : 0.25;
      }
      const HostTensor x(dtype, {n}, values);
      for (const int64_t begin : {0, 1, 3}) {
        if (begin > n) continue;
        const TensorView tail = x.view().Slice(0, begin, n);
        for (const DType as : kTargets) {
          for (const int threads : {1, 3}) {
            const test::Shared<int64_t> count(5);
            TestExec exec(threads);
            ASSERT_TRUE(
                IsOk(TE_OP(CountNonfinite)(exec, {.x = tail, .as = as, .count = count.get()})));
            EXPECT_EQ(*count - 5, CountNonfiniteRef(FloatsOf(tail), as))
                << Name(dtype) << " as " << Name(as) << ", " << n << " from " << begin;
          }
        }
      }
    }
  }
}

// The twin of each edge: one value moved over it is counted.
TEST(CountNonfiniteTest, OneStepOverTheEdgeCounts) {
  const struct {
    DType as;
    float below;
  } cases[] = {{DType::kFloat16, std::nextafter(65520.0f, 0.0f)},
               {DType::kBFloat16, std::bit_cast<float>(0x7f7f7fffu)},
               {DType::kFloat32, std::numeric_limits<float>::max()},
               {DType::kFloat64, std::numeric_limits<float>::max()}};
  for (const auto& c : cases) {
    const auto count_of = [&](float value) {
      const HostTensor x(DType::kFloat32, {3}, {1, value, -1});
      const test::Shared<int64_t> count(0);
      TestExec exec;
      EXPECT_TRUE(IsOk(TE_OP(CountNonfinite)(exec, {.x = x, .as = c.as, .count = count.get()})));
      return *count;
    };
    EXPECT_EQ(count_of(c.below), 0) << Name(c.as);
    EXPECT_EQ(count_of(std::nextafter(c.below, HUGE_VALF)), 1) << Name(c.as);
  }
}

TEST(CountNonfiniteTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor x(DType::kFloat32, {4, 6}), half(DType::kFloat16, {4}),
      strided(DType::kFloat32, {4, 6}, 1);
  const test::Shared<int64_t> count(7);
  TestExec exec;
  const auto check = [&](const CountNonfiniteArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(CountNonfinite)(exec, args), StatusCode::kInvalidArgument, part));
    EXPECT_EQ(*count, 7);
  };
  check({.x = half, .count = count.get()}, "x is float16");
  check({.x = strided, .count = count.get()}, "x is float32 [4, 6] strides");
  check({.x = x, .as = DType::kInt32, .count = count.get()}, "as is int32");
  check({.x = x}, "count is null");
  check({.x = ConstTensorView(nullptr, DType::kFloat32, {3}), .count = count.get()},
        "x is nothing");
}

}  // namespace
}  // namespace te
