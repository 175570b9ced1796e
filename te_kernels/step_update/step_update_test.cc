#include "te_kernels/step_update/step_update.h"

#include <cmath>
#include <cstring>

#include "gtest/gtest.h"
#include "te_kernels/step_update/step_update_ref.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::FailsWith;
using test::IsOk;
using test::TestExec;

StepScalars Scalars() {
  StepScalars s;
  s.loss_sum = 123.5;
  s.token_count = 40;
  s.step = 7;
  s.rng_offset = 1000;
  s.grad_square_sum = 6400;  // the mean gradient's norm is 80 / 40 = 2
  s.learning_rate = 0.5f;
  return s;
}

void ExpectEqual(const StepScalars& got, const StepScalars& want) {
  EXPECT_EQ(got.loss_sum, want.loss_sum);
  EXPECT_EQ(got.token_count, want.token_count);
  EXPECT_EQ(got.step, want.step);
  EXPECT_EQ(got.rng_offset, want.rng_offset);
  EXPECT_EQ(got.grad_square_sum, want.grad_square_sum);
  EXPECT_EQ(got.learning_rate, want.learning_rate);
  EXPECT_FLOAT_EQ(got.grad_scale, want.grad_scale);
  EXPECT_EQ(got.loss_scale, want.loss_scale);
  EXPECT_EQ(got.skip, want.skip);
}

TEST(StepUpdateTest, EqualsTheReference) {
  TestExec exec;
  for (const float max_norm : {0.0f, 0.25f, 1.0f, 2.5f}) {
    for (const float loss_scale : {1.0f, 1024.0f}) {
      for (const int64_t tokens : {0, 1, 40}) {
        const test::Shared<StepScalars> s(Scalars());
        s->loss_scale = loss_scale;
        s->token_count = tokens;
        const StepScalars want = StepUpdateRef(*s, max_norm, 65536);
        ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(
            exec, {.scalars = s.get(), .max_grad_norm = max_norm, .rng_advance = 65536})));
        ExpectEqual(*s, want);
      }
    }
  }
}

// The numbers of torch.nn.utils.clip_grad_norm_ by hand: norm 2, limit 1: the factor is 1 / (2 +
// 1e-6).
TEST(StepUpdateTest, ClipsTheMeanGradientAndCountsTheStep) {
  const test::Shared<StepScalars> s(Scalars());
  EXPECT_EQ(GradNorm(*s), 2);
  TestExec exec;
  ASSERT_TRUE(IsOk(
      TE_OP(StepUpdate)(exec, {.scalars = s.get(), .max_grad_norm = 1, .rng_advance = 65536})));
  EXPECT_FLOAT_EQ(s->grad_scale, static_cast<float>(1 / (2 + 1e-6) / 40));
  EXPECT_EQ(s->step, 8);
  EXPECT_EQ(s->rng_offset, 66536u);
  EXPECT_EQ(s->skip, 0);
  *s = Scalars();
  ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(exec, {.scalars = s.get(), .max_grad_norm = 3})));
  EXPECT_FLOAT_EQ(s->grad_scale, 1.0f / 40) << "a norm below the limit is not clipped";
}

TEST(StepUpdateTest, NoTokensSkipAndChangeNothingElse) {
  const test::Shared<StepScalars> s(Scalars());
  s->token_count = 0;
  StepScalars want = *s;
  want.skip = 1;
  TestExec exec;
  ASSERT_TRUE(IsOk(
      TE_OP(StepUpdate)(exec, {.scalars = s.get(), .max_grad_norm = 1, .rng_advance = 65536})));
  ExpectEqual(*s, want);
  EXPECT_EQ(GradNorm(*s), 0);
  s->token_count = 5;
  ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(exec, {.scalars = s.get()})));
  EXPECT_EQ(s->skip, 0) << "the next step with tokens runs";
}

TEST(StepUpdateTest, ANormThatIsNotFiniteShows) {
  const test::Shared<StepScalars> s(Scalars());
  s->grad_square_sum = std::nan("");
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(exec, {.scalars = s.get(), .max_grad_norm = 1})));
  EXPECT_TRUE(std::isnan(s->grad_scale));
}

TEST(StepUpdateTest, RefusesWhatTheContractDoesNotTake) {
  const test::Shared<StepScalars> s(Scalars());
  TestExec exec;
  EXPECT_TRUE(
      FailsWith(TE_OP(StepUpdate)(exec, {}), StatusCode::kInvalidArgument, "scalars is null"));
  EXPECT_TRUE(FailsWith(TE_OP(StepUpdate)(exec, {.scalars = s.get(), .max_grad_norm = -1}),
                        StatusCode::kInvalidArgument, "max_grad_norm is -1"));
  ExpectEqual(*s, Scalars());
}

// Scale before the backward pass and advance after it make what one update makes.
TEST(StepUpdateTest, TheTwoPartsAreTheWhole) {
  const TestExec exec;
  for (const int64_t tokens : {0, 7}) {
    StepScalars start;
    start.token_count = tokens;
    start.grad_square_sum = 3;
    start.rng_offset = 5;
    test::Shared<StepScalars> whole(start), parts(start);
    ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(exec, {.scalars = whole.get(), .rng_advance = 64})));
    ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(
        exec, {.scalars = parts.get(), .part = StepUpdatePart::kScale, .rng_advance = 64})));
    EXPECT_EQ(parts->rng_offset, 5u);
    EXPECT_EQ(parts->step, whole->step);
    ASSERT_TRUE(IsOk(TE_OP(StepUpdate)(
        exec, {.scalars = parts.get(), .part = StepUpdatePart::kAdvance, .rng_advance = 64})));
    EXPECT_EQ(parts->rng_offset, whole->rng_offset);
    EXPECT_EQ(parts->rng_offset, tokens == 0 ? 5u : 69u);
    EXPECT_EQ(parts->grad_scale, whole->grad_scale);
    EXPECT_EQ(parts->skip, whole->skip);
  }
}

}  // namespace
}  // namespace te
