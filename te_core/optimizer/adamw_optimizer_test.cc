#include "te_core/optimizer/adamw_optimizer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_core/comm/in_process.h"
#include "te_kernels/adamw/adamw_ref.h"
#include "te_kernels/base/step_scalars.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Disturbed;
using test::FailsWith;
using test::IsOk;
using test::Near;
using test::ToDoubles;
using test::UnitRoundoff;

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;

class AdamWOptimizerTest : public testing::Test {
 protected:
  static std::unique_ptr<Context> NewContext(int threads, Communicator* data = nullptr) {
    ContextOptions options = {.num_threads = threads, .seed = 9};
    options.groups.data = data;
    auto context = Context::Create(options);
    EXPECT_TRUE(context.ok()) << context.status().message();
    return std::move(context).value();
  }
  // Two trained parameters with gradients, and a frozen one without.
  std::vector<Parameter> MakeParameters(DType dtype) {
    std::vector<Parameter> out(3);
    const Shape shapes[] = {{5, 7}, {2000}, {3, 3}};
    for (int i = 0; i < 3; ++i) {
      out[i].name = fmt::format("p{}", i);
      auto value = context_->NewTensor(dtype, shapes[i]);
      EXPECT_TRUE(value.ok());
      out[i].value = std::move(value).value();
      test::FromDoubles(test::NormalDoubles(shapes[i].elements(), i), out[i].value.view());
      out[i].requires_grad = i != 2;
      EXPECT_TRUE(IsOk(out[i].EnsureGrad(context_->memory())));
      if (i != 2) SetGradient(out[i], 10 + i);
    }
    return out;
  }
  static void SetGradient(Parameter& parameter, uint64_t seed) {
    test::FromDoubles(test::NormalDoubles(parameter.value.shape().elements(), seed, 20),
                      parameter.grad.view());
  }
  static std::vector<Parameter*> Pointers(std::vector<Parameter>& parameters) {
    std::vector<Parameter*> out;
    for (Parameter& p : parameters) out.push_back(&p);
    return out;
  }
  std::unique_ptr<AdamWOptimizer> Make(std::vector<Parameter>& parameters,
                                       const AdamWOptions& options) {
    auto optimizer = AdamWOptimizer::Create(context_.get(), Pointers(parameters), options);
    EXPECT_TRUE(optimizer.ok()) << optimizer.status().message();
    return std::move(optimizer).value();
  }
  // What the loss does over a step's micro-batches.
  void CountTokens(int64_t count) {
    StepScalars scalars = Scalars();
    scalars.token_count += count;
    scalars.loss_sum += 2.5 * static_cast<double>(count);
    ASSERT_TRUE(IsOk(context_->WriteScalars(scalars)));
  }
  StepScalars Scalars() { return *context_->ReadScalars(); }
  static std::vector<std::vector<uint8_t>> Bytes(const std::vector<Parameter>& parameters,
                                                 const AdamWOptimizer& optimizer) {
    std::vector<std::vector<uint8_t>> out;
    for (const Parameter& p : parameters) out.push_back(test::BytesOf(p.value));
    for (const auto& tensor : optimizer.StateTensors()) out.push_back(test::BytesOf(tensor.value));
    return out;
  }

  std::unique_ptr<Context> context_ = NewContext(2);
};

// Three steps of all trained parameters against the reference in double, gradients clipped by their
// common norm.
TEST_F(AdamWOptimizerTest, FollowsTheReferenceOverStepsWithAndWithoutClipping) {
  for (const float max_norm : {0.0f, 0.5f, 1e6f}) {
    std::vector<Parameter> parameters = MakeParameters(kF32);
    ASSERT_TRUE(IsOk(context_->WriteScalars(StepScalars{})));
    auto optimizer =
        Make(parameters, {.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1});
    std::vector<std::vector<double>> w(2), m(2), v(2);
    for (int i = 0; i < 2; ++i) {
      w[i] = ToDoubles(parameters[i].value);
      m[i].assign(w[i].size(), 0);
      v[i] = m[i];
    }
    const std::vector<double> frozen = ToDoubles(parameters[2].value);
    constexpr int64_t kTokens = 48;
    for (int step = 1; step <= 3; ++step) {
      ASSERT_TRUE(IsOk(optimizer->BeginStep()));
      EXPECT_EQ(Scalars().token_count, 0);
      EXPECT_EQ(Scalars().loss_sum, 0);
      CountTokens(40);
      CountTokens(kTokens - 40);
      double squares = 0;
      for (int i = 0; i < 2; ++i) {
        SetGradient(parameters[i], 100 * step + i);
        for (double g : ToDoubles(parameters[i].grad)) squares += g * g;
      }
      const double norm = std::sqrt(squares) / kTokens;
      const double clip = max_norm == 0 ? 1 : std::min(1.0, max_norm / (norm + 1e-6));
      if (max_norm == 0.5f) {
        EXPECT_LT(clip, 0.1);
      }
      const float lr = 0.01f * static_cast<float>(step);
      ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = lr, .max_grad_norm = max_norm})));
      for (int i = 0; i < 2; ++i) {
        AdamWRef({.learning_rate = lr,
                  .beta1 = 0.8,
                  .beta2 = 0.95,
                  .epsilon = 1e-6,
                  .weight_decay = 0.1,
                  .grad_scale = clip / kTokens,
                  .step = step},
                 ToDoubles(parameters[i].grad), &w[i], &m[i], &v[i]);
        // A step's dozen roundings on weights up to 5 and updates of a few lr.
        const double tolerance = 12 * step * UnitRoundoff(kF32) * 8;
        EXPECT_TRUE(Near(ToDoubles(parameters[i].value), w[i], tolerance)) << step;
        EXPECT_FALSE(Near(ToDoubles(parameters[i].value), Disturbed(w[i], 3, 1e-4), tolerance));
      }
      EXPECT_EQ(Scalars().step, step);
      EXPECT_EQ(Scalars().rng_offset, step * AdamWOptimizer::kRngAdvance);
      EXPECT_EQ(Scalars().learning_rate, lr);
      EXPECT_EQ(Scalars().loss_sum, 2.5 * kTokens) << "readable until the next step begins";
      if (max_norm != 0) {
        EXPECT_NEAR(GradNorm(Scalars()), norm, 1e-9 * norm);
      }
    }
    EXPECT_EQ(ToDoubles(parameters[2].value), frozen);
  }
}

TEST_F(AdamWOptimizerTest, GradNormIsComputedWhenAskedWithoutClipping) {
  std::vector<Parameter> parameters = MakeParameters(kF32);
  auto optimizer = Make(parameters, {});
  ASSERT_TRUE(IsOk(optimizer->BeginStep()));
  CountTokens(10);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f})));
  EXPECT_EQ(Scalars().grad_square_sum, 0);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f, .want_grad_norm = true})));
  double squares = 0;
  for (int i = 0; i < 2; ++i) {
    for (double g : ToDoubles(parameters[i].grad)) squares += g * g;
  }
  EXPECT_NEAR(GradNorm(Scalars()), std::sqrt(squares) / 10, 1e-9 * std::sqrt(squares));
  EXPECT_FLOAT_EQ(Scalars().grad_scale, 0.1f) << "not clipped";
  ASSERT_TRUE(IsOk(optimizer->BeginStep()));
  EXPECT_EQ(Scalars().grad_square_sum, 0);
}

// Whenever the squares were summed, one after the other in any order, the norm has the same bits.
TEST_F(AdamWOptimizerTest, SquaresThatWereSummedBeforeGiveTheSameNormAndClip) {
  using GradSquares = AdamWOptimizer::GradSquares;
  std::vector<std::vector<uint8_t>> left[3];
  double sums[3];
  for (const int way : {0, 1, 2}) {  // at once; before, backwards; inside the backward pass
    context_ = NewContext(1, nullptr);
    std::vector<Parameter> parameters = MakeParameters(kF32);
    auto optimizer = Make(parameters, {});
    ASSERT_TRUE(IsOk(optimizer->BeginStep()));
    CountTokens(10);
    ASSERT_TRUE(IsOk(optimizer->SetLearningRate(0.1f)));
    const float clip = way == 2 ? 0 : 0.01f;
    if (way == 0) {
      ASSERT_TRUE(IsOk(optimizer->RunStep(clip, GradSquares::kMake)));
    } else if (way == 1) {
      for (int i = 2; i >= 0; --i)
        ASSERT_TRUE(IsOk(optimizer->SumSquaresBeside(parameters[static_cast<size_t>(i)])));
      ASSERT_TRUE(IsOk(context_->JoinBeside()));
      ASSERT_TRUE(IsOk(optimizer->RunStep(clip, GradSquares::kMade)));
    } else {
      ASSERT_TRUE(IsOk(optimizer->BeginUpdates(/*want_grad_norm=*/true)));
      for (int i = 2; i >= 0; --i)
        ASSERT_TRUE(IsOk(optimizer->UpdateNow(parameters[static_cast<size_t>(i)])));
      ASSERT_TRUE(IsOk(optimizer->EndUpdates()));
    }
    left[way] = Bytes(parameters, *optimizer);
    sums[way] = Scalars().grad_square_sum;
  }
  EXPECT_GT(sums[0], 0);
  EXPECT_EQ(sums[1], sums[0]);
  EXPECT_EQ(sums[2], sums[0]);
  EXPECT_EQ(left[1], left[0]);
  EXPECT_NE(left[2], left[0]) << "the last way does not clip";
}

// One step on sums over 30 tokens equals one step on gradients half as large over 15: the count
// divides once, whatever the number of micro-batches.
TEST_F(AdamWOptimizerTest, TheTokenCountDividesOnce) {
  std::vector<std::vector<double>> results;
  for (const int64_t tokens : {32, 16}) {
    std::vector<Parameter> parameters = MakeParameters(kF32);
    ASSERT_TRUE(IsOk(context_->WriteScalars(StepScalars{})));
    if (tokens == 16) {
      for (int i = 0; i < 2; ++i) {
        std::vector<double> grad = ToDoubles(parameters[i].grad);
        for (double& g : grad) g *= 0.5;
        test::FromDoubles(grad, parameters[i].grad.view());
      }
    }
    auto optimizer = Make(parameters, {});
    ASSERT_TRUE(IsOk(optimizer->BeginStep()));
    CountTokens(tokens);
    ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f})));
    results.push_back(ToDoubles(parameters[1].value));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(AdamWOptimizerTest, WithoutTokensNothingChanges) {
  std::vector<Parameter> parameters = MakeParameters(kBf16);
  auto optimizer = Make(
      parameters, {.master_weights = MasterWeights::kFloat32, .rounding = Rounding::kStochastic});
  ASSERT_TRUE(IsOk(optimizer->BeginStep()));
  const auto before = Bytes(parameters, *optimizer);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f, .max_grad_norm = 1})));
  EXPECT_EQ(Bytes(parameters, *optimizer), before);
  EXPECT_EQ(Scalars().skip, 1);
  EXPECT_EQ(Scalars().step, 0);
  EXPECT_EQ(Scalars().rng_offset, 0u);
  CountTokens(4);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f, .max_grad_norm = 1})));
  EXPECT_NE(Bytes(parameters, *optimizer), before);
  EXPECT_EQ(Scalars().skip, 0);
  EXPECT_EQ(Scalars().step, 1);
}

TEST_F(AdamWOptimizerTest, StateFollowsTheOptionsAndLeavesFrozenParametersOut) {
  std::vector<Parameter> parameters = MakeParameters(kBf16);
  auto plain = Make(parameters, {.moments = kBf16});
  ASSERT_EQ(plain->states().size(), 2u);
  std::vector<std::string> names;
  for (const auto& tensor : plain->StateTensors()) {
    names.push_back(tensor.name);
    EXPECT_EQ(tensor.value.dtype(), kBf16);
    EXPECT_EQ(tensor.value.shape(), tensor.parameter->value.shape());
    for (double x : ToDoubles(tensor.value)) ASSERT_EQ(x, 0);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"p0.exp_avg", "p0.exp_avg_sq", "p1.exp_avg",
                                             "p1.exp_avg_sq"}));
  EXPECT_NE(plain->states()[0].random_stream, plain->states()[1].random_stream);

  auto with_masters = Make(parameters, {.master_weights = MasterWeights::kFloat32});
  ASSERT_EQ(with_masters->StateTensors().size(), 6u);
  EXPECT_EQ(with_masters->StateTensors()[2].name, "p0.master");
  EXPECT_EQ(with_masters->StateTensors()[0].value.dtype(), kF32);
  const Tensor& master = with_masters->states()[0].master;
  EXPECT_EQ(master.dtype(), kF32);
  EXPECT_EQ(ToDoubles(master), ToDoubles(parameters[0].value));

  std::vector<Parameter> wide = MakeParameters(kF32);
  auto own_masters = Make(wide, {.master_weights = MasterWeights::kFloat32});
  EXPECT_FALSE(own_masters->states()[0].master.defined()) << "float32 is its own master";
}

// A hundred updates of 2^-12 on 1: nearest rounding loses each of them, a master keeps them all,
// and stochastic rounding keeps them on average.
TEST_F(AdamWOptimizerTest, MastersAndStochasticRoundingKeepSmallUpdates) {
  const auto mean_after = [&](MasterWeights masters, Rounding rounding) {
    std::vector<Parameter> parameters = MakeParameters(kBf16);
    Parameter& p = parameters[1];
    test::FromDoubles(std::vector<double>(2000, 1.0), p.value.view());
    test::FromDoubles(std::vector<double>(2000, -1.0), p.grad.view());
    auto optimizer =
        Make(parameters, {.weight_decay = 0, .master_weights = masters, .rounding = rounding});
    EXPECT_TRUE(IsOk(context_->WriteScalars(StepScalars{})));
    for (int step = 0; step < 100; ++step) {
      EXPECT_TRUE(IsOk(optimizer->BeginStep()));
      CountTokens(1);
      EXPECT_TRUE(IsOk(optimizer->Step({.learning_rate = 0x1p-12f})));
    }
    double sum = 0;
    for (double w : ToDoubles(p.value)) sum += w;
    return sum / 2000;
  };
  const double want = 1 + 100 * 0x1p-12;  // a constant gradient moves by the learning rate
  EXPECT_EQ(mean_after(MasterWeights::kNone, Rounding::kNearest), 1);
  EXPECT_NEAR(mean_after(MasterWeights::kFloat32, Rounding::kNearest), want,
              UnitRoundoff(kBf16) * want);
  // 100 roundings of variance (2^-7)^2 / 4 at most, 2000 parameters, five deviations.
  EXPECT_NEAR(mean_after(MasterWeights::kNone, Rounding::kStochastic), want,
              5 * std::sqrt(100 / 2000.0) * 0x1p-8);
}

TEST_F(AdamWOptimizerTest, RepeatsBitwiseForAnyNumberOfThreads) {
  std::vector<std::vector<uint8_t>> first;
  for (const int threads : {1, 1, 2}) {
    context_ = NewContext(threads, nullptr);
    std::vector<Parameter> parameters = MakeParameters(kBf16);
    auto optimizer = Make(parameters, {.moments = kBf16, .rounding = Rounding::kStochastic});
    CountTokens(5);
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.01f, .max_grad_norm = 1})));
    }
    if (first.empty()) first = Bytes(parameters, *optimizer);
    EXPECT_EQ(Bytes(parameters, *optimizer), first) << threads;
  }
}

TEST_F(AdamWOptimizerTest, BumpsTheVersionsOfWhatItWrites) {
  std::vector<Parameter> parameters = MakeParameters(kF32);
  auto optimizer = Make(parameters, {});
  const uint64_t version = parameters[0].version, frozen = parameters[2].version;
  CountTokens(3);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f})));
  EXPECT_GT(parameters[0].version, version);
  EXPECT_EQ(parameters[2].version, frozen);
}

TEST_F(AdamWOptimizerTest, AStepAllocatesNothingWhenItsShapesWereSeen) {
  std::vector<Parameter> parameters = MakeParameters(kBf16);
  auto optimizer = Make(parameters, {.rounding = Rounding::kStochastic});
  CountTokens(3);
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f, .max_grad_norm = 1})));
  const int64_t before = context_->memory_statistics().allocations;
  ASSERT_TRUE(IsOk(optimizer->Step({.learning_rate = 0.1f, .max_grad_norm = 1})));
  EXPECT_EQ(context_->memory_statistics().allocations, before);
}

class RanksTest : public AdamWOptimizerTest {
 protected:
  struct Outcome {
    std::vector<std::vector<uint8_t>> bytes;
    StepScalars scalars;
  };
  // Two steps: of a rank of `group` with gradients of its own, or, without a group, of one rank
  // with the sum of the gradients of `ranks` ranks.
  StatusOr<Outcome> Train(Communicator* group, int ranks, float max_norm, bool disturbed = false) {
    context_ = NewContext(1, group);
    std::vector<Parameter> parameters = MakeParameters(kBf16);
    auto optimizer = Make(parameters, {.rounding = Rounding::kStochastic});
    for (uint64_t step = 0; step < 2; ++step) {
      TE_RETURN_IF_ERROR(optimizer->BeginStep());
      for (int i = 0; i < 2; ++i) {
        std::vector<double> sum;
        for (int r = 0; r < ranks; ++r) {
          if (group != nullptr && r != group->rank()) continue;
          const std::vector<double> values =
              test::UniformDoubles(parameters[i].value.shape().elements(),
                                   100 * step + 10 * static_cast<uint64_t>(i + r), -7, 7);
          sum.resize(values.size());
          // Sixteenths, whose sums float32 holds.
          for (size_t e = 0; e < sum.size(); ++e) sum[e] += std::floor(16 * values[e]) / 16;
          CountTokens(3 + r);
        }
        if (disturbed) sum[3] += 1;
        test::FromDoubles(sum, parameters[i].grad.view());
      }
      TE_RETURN_IF_ERROR(optimizer->Step({.learning_rate = 0.1f, .max_grad_norm = max_norm}));
    }
    return Outcome{Bytes(parameters, *optimizer), Scalars()};
  }
};

TEST_F(RanksTest, SeveralRanksMakeTheStepsOfOneWithTheSumOfTheirGradients) {
  for (const int ranks : {2, 4}) {
    for (const float max_norm : {0.0f, 0.5f}) {
      const auto want = Train(nullptr, ranks, max_norm);
      ASSERT_TRUE(IsOk(want.status()));
      // A fixture, and so a context, for each rank.
      class OneRank : public RanksTest {
       public:
        using RanksTest::Train;
        void TestBody() override {}
      };
      std::vector<std::unique_ptr<OneRank>> fixtures;
      for (int r = 0; r < ranks; ++r) fixtures.push_back(std::make_unique<OneRank>());
      std::vector<StatusOr<Outcome>> got(static_cast<size_t>(ranks), Internal("did not run"));
      const Status status = RunRanks({.ranks = ranks}, [&](Communicator* world) -> Status {
        const auto r = static_cast<size_t>(world->rank());
        auto& outcome = got[r];
        outcome = fixtures[r]->Train(world, ranks, max_norm);
        return outcome.status();
      });
      ASSERT_TRUE(IsOk(status));
      for (const auto& rank : got) {
        EXPECT_EQ(rank->bytes, want->bytes) << ranks << " ranks, max_norm " << max_norm;
        EXPECT_EQ(rank->scalars.token_count, want->scalars.token_count);
        EXPECT_EQ(rank->scalars.loss_sum, want->scalars.loss_sum);
        EXPECT_EQ(rank->scalars.grad_square_sum, want->scalars.grad_square_sum);
      }
      const auto twin = Train(nullptr, ranks, max_norm, /*disturbed=*/true);
      ASSERT_TRUE(IsOk(twin.status()));
      EXPECT_NE(twin->bytes, want->bytes);
    }
  }
}

TEST_F(RanksTest, WhatOneRankAloneWouldGetWrongIsRefusedByName) {
  const auto world = MakeInProcessWorld({.ranks = 2});
  ASSERT_TRUE(IsOk(world.status()));
  Communicator* const two = (*world)[0].get();
  context_ = NewContext(1, two);
  std::vector<Parameter> parameters = MakeParameters(kF32);
  auto optimizer = Make(parameters, {});
  EXPECT_TRUE(FailsWith(optimizer->BeginUpdates(false), StatusCode::kUnsupported,
                        "updates inside the backward pass over group 'world' of 2 ranks"));
  EXPECT_TRUE(FailsWith(optimizer->SumSquaresBeside(parameters[0]), StatusCode::kUnsupported,
                        "sums of squares inside the backward pass"));
  for (const auto& [member, name] :
       {std::pair{&ProcessGroups::tensor, "groups.tensor of 2 ranks"},
        {&ProcessGroups::pipeline, "groups.pipeline of 2 ranks"},
        {&ProcessGroups::expert, "groups.expert of 2 ranks"},
        {&ProcessGroups::expert_tensor, "groups.expert_tensor of 2 ranks"}}) {
    ContextOptions options;
    options.groups.*member = two;
    auto context = Context::Create(options);
    ASSERT_TRUE(IsOk(context.status()));
    EXPECT_TRUE(FailsWith(AdamWOptimizer::Create(context->get(), {}, {}).status(),
                          StatusCode::kUnsupported, name));
  }
}

TEST_F(AdamWOptimizerTest, RefusesWhatTheContractDoesNotTake) {
  std::vector<Parameter> parameters = MakeParameters(kF32);
  const auto check = [&](const AdamWOptions& options, const char* part) {
    EXPECT_TRUE(
        FailsWith(AdamWOptimizer::Create(context_.get(), Pointers(parameters), options).status(),
                  StatusCode::kInvalidArgument, part));
  };
  check({.beta1 = 1}, "beta1 is 1");
  check({.beta2 = -0.1}, "beta2 is -0.1");
  check({.epsilon = std::nan("")}, "epsilon is nan");
  check({.weight_decay = -1}, "weight_decay is -1");
  check({.moments = DType::kFloat16}, "moments are float16");
  check({.master_weights = static_cast<MasterWeights>(5)}, "master_weights is 5");
  check({.rounding = static_cast<Rounding>(5)}, "rounding is 5");
  Parameter* p = &parameters[0];
  EXPECT_TRUE(FailsWith(AdamWOptimizer::Create(context_.get(), {p, p}, {}).status(),
                        StatusCode::kInvalidArgument, "parameter 1 ('p0') is in the list twice"));
  EXPECT_TRUE(FailsWith(AdamWOptimizer::Create(context_.get(), {p, nullptr}, {}).status(),
                        StatusCode::kInvalidArgument, "parameter 1 of 2 is null"));
  Parameter half;
  half.name = "half";
  half.value = std::move(context_->NewTensor(DType::kFloat16, {3})).value();
  EXPECT_TRUE(FailsWith(AdamWOptimizer::Create(context_.get(), {&half}, {}).status(),
                        StatusCode::kInvalidArgument, "'half' is float16"));

  auto optimizer = Make(parameters, {});
  CountTokens(3);
  const auto before = Bytes(parameters, *optimizer);
  EXPECT_TRUE(FailsWith(optimizer->Step({.learning_rate = -1}), StatusCode::kInvalidArgument,
                        "learning_rate is -1"));
  EXPECT_TRUE(FailsWith(optimizer->Step({.learning_rate = 1, .max_grad_norm = -1}),
                        StatusCode::kInvalidArgument, "max_grad_norm is -1"));
  EXPECT_TRUE(FailsWith(optimizer->RunStep(0.5f, AdamWOptimizer::GradSquares::kNone),
                        StatusCode::kInvalidArgument, "max_grad_norm is 0.5 without"));
  parameters[1].grad = Tensor();
  EXPECT_TRUE(FailsWith(optimizer->Step({.learning_rate = 1}), StatusCode::kFailedPrecondition,
                        "'p1' has no gradient"));
  EXPECT_EQ(Bytes(parameters, *optimizer), before);
  EXPECT_EQ(Scalars().step, 0);
}

}  // namespace
}  // namespace te
