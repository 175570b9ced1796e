#include "models/train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "models/json/json.h"
#include "models/train/progress.h"
#include "te_core/context.h"
#include "te_core/optimizer/adamw_optimizer.h"
#include "te_core/parameter.h"

namespace te {
namespace {

// A model of one weight w whose token x has the loss (w - x)^2 / 2: gradient w - x, and every
// number can be written down.
class OneWeight : public ::testing::Test {
 protected:
  void SetUp() override {
    auto context = Context::Create({.num_threads = 1});
    ASSERT_TRUE(context.ok()) << context.status().message();
    context_ = std::move(context).value();
    parameter_.name = "w";
    parameter_.value = context_->NewZeroTensor(DType::kFloat32, {1}).value();
    parameter_.grad = context_->NewZeroTensor(DType::kFloat32, {1}).value();
    model_.run_step = [this](std::span<const Batch> batches, float learning_rate) -> Status {
      TE_RETURN_IF_ERROR(optimizer_->BeginStep());
      for (size_t i = 0; i < batches.size(); ++i) RunMicroBatch(batches[i], i > 0);
      return optimizer_->Step({.learning_rate = learning_rate, .want_grad_norm = true});
    };
    model_.result = [this](int) { return context_->ReadScalars(); };
  }

  void RunMicroBatch(const Batch& batch, bool accumulate) {
    accumulated_.push_back(accumulate);
    StepScalars* scalars = context_->scalars();
    float* gradient = parameter_.grad.view().as<float>();
    if (!accumulate) *gradient = 0;
    for (int32_t x : batch.labels) {
      if (x == kIgnoredLabel) continue;
      const float difference =
          *parameter_.value.view().as<float>() - static_cast<float>(x) + poison_;
      scalars->loss_sum += 0.5 * difference * difference;
      scalars->token_count += 1;
      *gradient += difference;
    }
  }

  // Micro-batch i: `labels[i]`, one row.
  StatusOr<TrainingResult> Run(const std::vector<std::vector<int32_t>>& labels,
                               TrainerOptions options, const std::function<bool()>& stop = {}) {
    auto optimizer = AdamWOptimizer::Create(context_.get(), {&parameter_}, {.weight_decay = 0});
    EXPECT_TRUE(optimizer.ok()) << optimizer.status().message();
    optimizer_ = std::move(optimizer).value();
    const BatchSource source = [&](int64_t index) -> StatusOr<Batch> {
      requested_.push_back(index);
      const std::vector<int32_t>& row = labels[static_cast<size_t>(index) % labels.size()];
      return Batch{1, static_cast<int64_t>(row.size()), row, row,
                   std::vector<uint8_t>(row.size(), 1)};
    };
    return Train(model_, source, options, {&recorder_}, stop);
  }
  static TrainerOptions Constant(int64_t steps) {
    TrainerOptions options;
    options.steps = steps;
    options.schedule = {.kind = LrScheduleKind::kConstant,
                        .learning_rate = 0.125,
                        .warmup_steps = 0,
                        .steps = steps};
    return options;
  }

  struct Recorder : TrainingObserver {
    Status OnStep(const StepReport& report) override {
      reports.push_back(report);
      return OkStatus();
    }
    std::vector<StepReport> reports;
  };

  std::unique_ptr<Context> context_;
  Parameter parameter_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  TrainableModel model_;
  Recorder recorder_;
  std::vector<bool> accumulated_;
  std::vector<int64_t> requested_;
  float poison_ = 0;
};

TEST_F(OneWeight, LossAndNormAreMeansOverTheTokensOfAllMicroBatches) {
  TrainerOptions options = Constant(1);
  options.gradient_accumulation_steps = 3;
  ASSERT_TRUE(Run({{4, 4, -100}, {1, -100, -100}, {-100, -100, -100}}, options).ok());
  ASSERT_EQ(recorder_.reports.size(), 1u);
  const StepReport& report = recorder_.reports[0];
  EXPECT_EQ(report.counted_tokens, 3);
  EXPECT_EQ(report.tokens, 9);
  EXPECT_DOUBLE_EQ(report.loss, (8 + 8 + 0.5) / 3);
  EXPECT_NEAR(report.grad_norm, (4 + 4 + 1) / 3.0, 1e-6);
  EXPECT_EQ(accumulated_, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(requested_, (std::vector<int64_t>{0, 1, 2}));
  // AdamW's first update is lr in size, against the gradient's sign.
  EXPECT_NEAR(*parameter_.value.view().as<float>(), 0.125, 1e-6);
}

TEST_F(OneWeight, LearningRateOfUpdateKComesFromTheSchedule) {
  TrainerOptions options = Constant(4);
  options.schedule = {
      .kind = LrScheduleKind::kLinear, .learning_rate = 0.5, .warmup_steps = 2, .steps = 4};
  ASSERT_TRUE(Run({{10}}, options).ok());
  const double expected[] = {0, 0.25, 0.5, 0.25};
  for (int k = 0; k < 4; ++k) EXPECT_DOUBLE_EQ(recorder_.reports[k].learning_rate, expected[k]);
  // The first update changes nothing.
  EXPECT_EQ(recorder_.reports[0].loss, recorder_.reports[1].loss);
  EXPECT_LT(recorder_.reports[2].loss, recorder_.reports[1].loss);
}

TEST_F(OneWeight, UntimedStepsStayOutOfTheAverageButOneIsTimed) {
  TrainerOptions options = Constant(15);
  const auto result = Run({{10}}, options);
  EXPECT_EQ(result->timed_steps, 10);
  EXPECT_FALSE(recorder_.reports[4].timed);
  EXPECT_TRUE(recorder_.reports[5].timed);
  double sum = 0;
  for (size_t i = 5; i < 15; ++i) sum += recorder_.reports[i].seconds;
  EXPECT_DOUBLE_EQ(result->seconds_per_step, sum / 10);
  EXPECT_EQ(Run({{10}}, Constant(3))->timed_steps, 1);
  EXPECT_EQ(Run({{10}}, Constant(0))->timed_steps, 0);
}

TEST_F(OneWeight, ALossThatIsNoNumberStopsTheRun) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    poison_ = bad;
    recorder_.reports.clear();
    const auto result = Run({{10}}, Constant(5));
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(result.status().message().find("step 1: the loss is"), std::string::npos);
    EXPECT_EQ(recorder_.reports.size(), 1u);  // the log has the step
  }
}

TEST_F(OneWeight, AStepWithoutCountedTokensChangesNothing) {
  *parameter_.value.view().as<float>() = 3;
  ASSERT_TRUE(Run({{-100, -100}}, Constant(2)).ok());
  EXPECT_EQ(recorder_.reports[1].counted_tokens, 0);
  EXPECT_EQ(*parameter_.value.view().as<float>(), 3);
  EXPECT_NE(FormatStep(recorder_.reports[1]).find("update skipped"), std::string::npos);
}

TEST_F(OneWeight, StopEndsTheRunBetweenSteps) {
  const auto result = Run({{10}}, Constant(9), [this] { return recorder_.reports.size() == 4; });
  EXPECT_TRUE(result->interrupted);
  EXPECT_EQ(result->steps_done, 4);
}

TEST_F(OneWeight, OptionsOutOfRangeAreRefused) {
  TrainerOptions options = Constant(1);
  options.gradient_accumulation_steps = 0;
  EXPECT_EQ(Run({{1}}, options).status().code(), StatusCode::kInvalidArgument);
  options.gradient_accumulation_steps = 65536;
  EXPECT_EQ(Run({{1}}, options).status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(Run({{1}}, Constant(-1)).ok());
}

// The later part of a run: data, learning rates and numbers are those of the whole.
TEST_F(OneWeight, ARunGoesOnAtItsFirstStep) {
  TrainerOptions options = Constant(6);
  options.schedule = {
      .kind = LrScheduleKind::kLinear, .learning_rate = 0.5, .warmup_steps = 2, .steps = 6};
  options.gradient_accumulation_steps = 2;
  options.untimed_steps = 1;
  options.first_step = 3;
  const auto result = Run({{10}}, options);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->steps_done, 3);
  EXPECT_EQ(result->timed_steps, 2);
  EXPECT_EQ(requested_, (std::vector<int64_t>{6, 7, 8, 9, 10, 11}));
  const double rates[] = {0.375, 0.25, 0.125};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(recorder_.reports[i].step, static_cast<int64_t>(i) + 4);
    EXPECT_DOUBLE_EQ(recorder_.reports[i].learning_rate, rates[i]);
    EXPECT_EQ(recorder_.reports[i].timed, i > 0);
  }
  options.first_step = 6;  // nothing is left
  EXPECT_EQ(Run({{10}}, options)->steps_done, 0);
  for (const int64_t bad : {-1, 7}) {
    options.first_step = bad;
    EXPECT_EQ(Run({{10}}, options).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_F(OneWeight, SavesEveryNStepsWithNoneInFlight) {
  for (const bool asynchronous : {false, true}) {
    std::vector<std::pair<int64_t, size_t>> saved;  // steps, and how many were reported by then
    recorder_.reports.clear();
    model_.asynchronous = asynchronous;
    model_.save = [&](int64_t steps) {
      saved.emplace_back(steps, recorder_.reports.size());
      return steps == 6 ? IoError("disk full") : OkStatus();
    };
    TrainerOptions options = Constant(8);
    options.save_every = 2;
    options.first_step = 1;
    const auto result = Run({{10}}, options);
    EXPECT_EQ(result.status().code(), StatusCode::kIoError);
    EXPECT_EQ(saved, (std::vector<std::pair<int64_t, size_t>>{{2, 1}, {4, 3}, {6, 5}}));
    saved.clear();
    options.steps = 4;  // the last step's result is not saved twice
    ASSERT_TRUE(Run({{10}}, options).ok());
    EXPECT_EQ(saved.size(), 1u);
    options.save_every = -1;
    EXPECT_EQ(Run({{10}}, options).status().code(), StatusCode::kInvalidArgument);
    options.save_every = 2;
    model_.save = nullptr;
    EXPECT_EQ(Run({{10}}, options).status().code(), StatusCode::kInvalidArgument);
  }
}

// Steps that run beside the host are read one later, in order and none left out.
TEST_F(OneWeight, AsynchronousStepsAreReportedInOrder) {
  std::vector<StepScalars> done;
  std::vector<int> asked;
  const auto run = model_.run_step;
  model_.asynchronous = true;
  model_.run_step = [&, run](std::span<const Batch> batches, float learning_rate) -> Status {
    TE_RETURN_IF_ERROR(run(batches, learning_rate));
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, context_->ReadScalars());
    done.push_back(scalars);
    return OkStatus();
  };
  model_.result = [&](int steps_ago) -> StatusOr<StepScalars> {
    asked.push_back(steps_ago);
    return done[done.size() - 1 - static_cast<size_t>(steps_ago)];
  };
  ASSERT_TRUE(Run({{10}}, Constant(4)).ok());
  EXPECT_EQ(asked, (std::vector<int>{1, 1, 1, 0}));
  ASSERT_EQ(recorder_.reports.size(), 4u);
  for (size_t k = 0; k < 4; ++k) {
    EXPECT_EQ(recorder_.reports[k].step, static_cast<int64_t>(k) + 1);
    EXPECT_EQ(recorder_.reports[k].loss,
              done[k].loss_sum / static_cast<double>(done[k].token_count));
  }
}

StepReport Example() {
  return {.step = 3,
          .steps = 15,
          .loss = 2.5,
          .learning_rate = 1e-5,
          .grad_norm = 0.75,
          .tokens = 100,
          .counted_tokens = 90,
          .seconds = 0.5,
          .timed = true};
}

std::string Shown(bool terminal, int columns) {
  std::string shown;
  ProgressDisplay display([&shown](std::string_view text) { shown += text; }, terminal, columns);
  EXPECT_TRUE(display.OnStep(Example()).ok());
  display.Finish();
  return shown;
}

TEST(Progress, ALineAStepAwayFromATerminal) {
  EXPECT_EQ(Shown(false, 40),
            "step  3/15 | loss 2.5000 | lr 1e-05 | grad norm 0.75 | 200 tokens/s | 500 ms\n");
}

TEST(Progress, ABarOnATerminalFitsItsWidth) {
  EXPECT_EQ(Shown(true, 120),
            "\r[####                    ]  3/15 | loss 2.5000 | lr 1e-05 | grad norm 0.75 | 200 "
            "tokens/s | 500 ms\x1b[K\n");
  // The bar gives way before the numbers do.
  EXPECT_EQ(Shown(true, 90),
            "\r[###            ]  3/15 | loss 2.5000 | lr 1e-05 | grad norm 0.75 | 200 "
            "tokens/s | 500 ms\x1b[K\n");
  EXPECT_EQ(Shown(true, 78),
            "\r 3/15 | loss 2.5000 | lr 1e-05 | grad norm 0.75 | 200 tokens/s | 500 ms\x1b[K\n");
  EXPECT_EQ(Shown(true, 40), "\r 3/15 | loss 2.5000 | lr 1e-05 | grad n\x1b[K\n");
}

TEST(Progress, ShortStepsKeepThreeDigits) {
  EXPECT_EQ(FormatMilliseconds(0.0004567), "0.457");
  EXPECT_EQ(FormatMilliseconds(0.005), "5.00");
  EXPECT_EQ(FormatMilliseconds(0.0104), "10");
  EXPECT_EQ(FormatMilliseconds(1.5), "1500");
  StepReport report = Example();
  report.seconds = 0.00025;
  EXPECT_TRUE(FormatStep(report).ends_with(" | 0.250 ms")) << FormatStep(report);
}

}  // namespace
}  // namespace te
