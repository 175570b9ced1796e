#include "te_kernels/cuda/search_budget.h"

#include <gtest/gtest.h>

#include <vector>

namespace te::cuda {
namespace {

// Searches that take all that they may: how long each, until nothing is left to speak of.
std::vector<double> Spend(SearchBudget* budget, int searches) {
  std::vector<double> each;
  double now = 0;
  for (int i = 0; i < searches; ++i) {
    budget->Begin(now);
    each.push_back(budget->Allowance());
    now += each.back();
    budget->End(now);
    now += 1000;  // the step between them costs the budget nothing
  }
  return each;
}

TEST(SearchBudget, AStepsSearchesKeepToTheLimitAndNoneIsLeftOut) {
  SearchBudget budget(12);
  const std::vector<double> each = Spend(&budget, 16);
  EXPECT_LT(budget.totals().seconds, 12);
  EXPECT_EQ(budget.totals().searches, 16);
  EXPECT_EQ(each.front(), 750);
  EXPECT_GT(each.back(), 300);  // enough for a look at the power limit
}

TEST(SearchBudget, ItRunsOutSlowlyAndStays) {
  SearchBudget budget(12);
  const std::vector<double> each = Spend(&budget, 200);
  EXPECT_LT(budget.totals().seconds, 12);
  EXPECT_LT(each.back(), 1);
  for (size_t i = 1; i < each.size(); ++i) EXPECT_LE(each[i], each[i - 1]);
  // A search that took more than it was given leaves nothing, and not less.
  budget.Begin(0);
  budget.End(60000);
  EXPECT_EQ(budget.last_seconds(), 60);
  EXPECT_EQ(budget.Allowance(), 0);
  budget.set_limit_seconds(1e6);
  EXPECT_EQ(budget.Allowance(), 750);
}

TEST(SearchBudget, TheCardIsHotForAMomentAfterASearch) {
  SearchBudget budget;
  EXPECT_FALSE(budget.IsHot(0));
  budget.Begin(100);
  budget.End(200);
  EXPECT_TRUE(budget.IsHot(250));
  EXPECT_FALSE(budget.IsHot(300));
}

}  // namespace
}  // namespace te::cuda
