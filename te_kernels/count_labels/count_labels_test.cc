#include "te_kernels/count_labels/count_labels.h"

#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::HostTensor;

HostTensor Labels(const std::vector<double>& labels) {
  return HostTensor(DType::kInt32, {static_cast<int64_t>(labels.size())}, labels);
}

TEST(CountLabelsTest, AddsTheLabelsThatCount) {
  test::TestExec exec;
  const HostTensor labels = Labels({3, -100, 0, -100, -1}), none = Labels({});
  const test::Shared<int64_t> count(7);
  ASSERT_TRUE(test::IsOk(TE_OP(CountLabels)(exec, {.labels = labels, .count = count.get()})));
  EXPECT_EQ(*count, 10);
  ASSERT_TRUE(test::IsOk(
      TE_OP(CountLabels)(exec, {.labels = labels, .ignore_index = 3, .count = count.get()})));
  EXPECT_EQ(*count, 14);
  ASSERT_TRUE(test::IsOk(TE_OP(CountLabels)(exec, {.labels = none, .count = count.get()})));
  EXPECT_EQ(*count, 14);
}

TEST(CountLabelsTest, CountsMoreLabelsThanABlockHasThreads) {
  test::TestExec exec;
  std::vector<double> values(5003, 1);
  for (size_t i = 0; i < values.size(); i += 7) values[i] = -100;
  const HostTensor labels = Labels(values);
  const test::Shared<int64_t> count(0);
  ASSERT_TRUE(test::IsOk(TE_OP(CountLabels)(exec, {.labels = labels, .count = count.get()})));
  EXPECT_EQ(*count, 5003 - 715);
}

TEST(CountLabelsTest, RefusesWhatItCannotCount) {
  test::TestExec exec;
  const test::Shared<int64_t> count(0);
  const HostTensor wide(DType::kInt64, {1}), none = Labels({});
  EXPECT_TRUE(test::FailsWith(TE_OP(CountLabels)(exec, {.labels = wide, .count = count.get()}),
                              StatusCode::kInvalidArgument, "labels is int64"));
  EXPECT_TRUE(test::FailsWith(TE_OP(CountLabels)(exec, {.labels = none}),
                              StatusCode::kInvalidArgument, "count is null"));
  EXPECT_EQ(*count, 0);
}

}  // namespace
}  // namespace te
