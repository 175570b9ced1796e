#include "te_kernels/count_labels/count_labels.h"

#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

ConstTensorView View(const std::vector<int32_t>& labels) {
  return ConstTensorView(labels.data(), DType::kInt32, {static_cast<int64_t>(labels.size())});
}

TEST(CountLabelsTest, AddsTheLabelsThatCount) {
  test::TestExec exec;
  const std::vector<int32_t> labels = {3, -100, 0, -100, -1};
  int64_t count = 7;
  ASSERT_TRUE(test::IsOk(TE_OP(CountLabels)(exec, {.labels = View(labels), .count = &count})));
  EXPECT_EQ(count, 10);
  ASSERT_TRUE(test::IsOk(
      TE_OP(CountLabels)(exec, {.labels = View(labels), .ignore_index = 3, .count = &count})));
  EXPECT_EQ(count, 14);
  ASSERT_TRUE(test::IsOk(TE_OP(CountLabels)(exec, {.labels = View({}), .count = &count})));
  EXPECT_EQ(count, 14);
}

TEST(CountLabelsTest, RefusesWhatItCannotCount) {
  test::TestExec exec;
  int64_t count = 0;
  const std::vector<int64_t> wide = {1};
  EXPECT_TRUE(test::FailsWith(
      TE_OP(CountLabels)(
          exec, {.labels = ConstTensorView(wide.data(), DType::kInt64, {1}), .count = &count}),
      StatusCode::kInvalidArgument, "labels is int64"));
  EXPECT_TRUE(test::FailsWith(TE_OP(CountLabels)(exec, {.labels = View({})}),
                              StatusCode::kInvalidArgument, "count is null"));
  EXPECT_EQ(count, 0);
}

}  // namespace
}  // namespace te
