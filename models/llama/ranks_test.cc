// Training steps over the ranks of a data-parallel group, each with its part of a batch, against
// the steps of one rank with the whole batch.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "models/llama/training_step.h"
#include "te_core/comm/in_process.h"
#include "te_core/comm/parallel_state.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::Value;

constexpr int64_t kBatch = 4, kSequence = 16;
constexpr int kSteps = 3;

LlamaConfig Config() {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 48;
  config.intermediate_size = 40;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 10;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  return config;
}

struct Outcome {
  std::vector<StepScalars> steps;
  std::vector<std::vector<char>> parameters;
};

// This rank, with its part of each batch. One label less counts where `one_label_less`.
StatusOr<Outcome> Train(const ProcessGroups& groups, bool one_label_less) {
  const int ranks = GroupSize(groups.data), rank = GroupRank(groups.data);
  ContextOptions options = {.num_threads = 1, .seed = 3};
  options.groups = groups;
  TE_ASSIGN_OR_RETURN(const auto context, Context::Create(options));
  TE_ASSIGN_OR_RETURN(const auto model, LlamaModel::Create(context.get(), Config(),
                                                           {.params_dtype = DType::kFloat32}));
  TE_RETURN_IF_ERROR(model->InitializeAll());
  // So large an epsilon that an update is a smooth function of the gradient.
  TE_ASSIGN_OR_RETURN(
      const auto optimizer,
      AdamWOptimizer::Create(context.get(), model->parameters(), {.epsilon = 1e-2}));
  TE_ASSIGN_OR_RETURN(const auto step, LlamaTrainingStep::Create(model.get(), optimizer.get(), {}));
  Outcome out;
  std::mt19937 engine(11);
  for (int k = 0; k < kSteps; ++k) {
    std::vector<int32_t> ids, labels;
    for (int64_t t = 0; t < kBatch * kSequence; ++t) {
      ids.push_back(static_cast<int32_t>(engine() % 61));
      // The parts of the batch have different numbers of labels.
      labels.push_back(static_cast<int64_t>(engine() % 64) < t ? -100 : ids.back());
    }
    if (one_label_less) labels[1] = -100;
    const int64_t part = kBatch / ranks, begin = part * kSequence * rank;
    const LlamaBatch batch = {
        .batch = part,
        .sequence = kSequence,
        .input_ids = std::span(ids).subspan(static_cast<size_t>(begin),
                                            static_cast<size_t>(part * kSequence)),
        .labels = std::span(labels).subspan(static_cast<size_t>(begin),
                                            static_cast<size_t>(part * kSequence))};
    TE_RETURN_IF_ERROR(step->Run({&batch, 1}, {.learning_rate = 0.05f, .max_grad_norm = 0.5f}));
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, step->Result(0));
    out.steps.push_back(scalars);
  }
  for (const Parameter* p : model->parameters()) {
    out.parameters.emplace_back(p->value.view().bytes());
    TE_RETURN_IF_ERROR(context->CopyToHost(p->value.view(), out.parameters.back().data()));
  }
  return out;
}

double Loss(const StepScalars& s) { return s.loss_sum / static_cast<double>(s.token_count); }

TEST(RanksTest, StepsOverADataParallelGroupAreThoseOfOneRankWithTheWholeBatch) {
  const Outcome want = Value(Train({}, false));
  // Sums of some thousand float32 products in another order, over a few operations in a row and
  // three steps.
  const double tolerance = 1e-5;
  for (const int ranks : {2, 4}) {
    std::vector<Outcome> got(static_cast<size_t>(ranks));
    Ok(RunRanks({.ranks = ranks}, [&](Communicator* world) -> Status {
      TE_ASSIGN_OR_RETURN(const auto parallel, ParallelState::Create(world, {}));
      TE_ASSIGN_OR_RETURN(got[static_cast<size_t>(world->rank())],
                          Train(parallel->groups(), false));
      return OkStatus();
    }));
    for (const Outcome& rank : got) {
      EXPECT_TRUE(rank.parameters == got[0].parameters) << "the ranks' parameters differ";
      for (size_t k = 0; k < kSteps; ++k) {
        EXPECT_EQ(rank.steps[k].token_count, want.steps[k].token_count);
        EXPECT_NEAR(Loss(rank.steps[k]), Loss(want.steps[k]), tolerance * Loss(want.steps[k]));
        EXPECT_NEAR(GradNorm(rank.steps[k]), GradNorm(want.steps[k]),
                    10 * tolerance * GradNorm(want.steps[k]));
      }
    }
  }
  // A twin: with one label less, and in the steps after it with other parameters.
  const Outcome twin = Value(Train({}, true));
  EXPECT_NE(twin.steps[0].token_count, want.steps[0].token_count);
  EXPECT_GT(std::abs(Loss(twin.steps[0]) - Loss(want.steps[0])),
            100 * tolerance * Loss(want.steps[0]));
  // And the steps have changed the model by more than the tolerance.
  EXPECT_GT(std::abs(GradNorm(want.steps[0]) - GradNorm(want.steps[1])),
            100 * tolerance * GradNorm(want.steps[0]));
}

TEST(RanksTest, AModelOverAGroupThatWouldDivideItIsRefused) {
  const auto handles = Value(MakeInProcessWorld({.ranks = 2}));
  for (const auto& [member, name] : {std::pair{&ProcessGroups::tensor, "groups.tensor of 2 ranks"},
                                     {&ProcessGroups::context, "groups.context of 2 ranks"},
                                     {&ProcessGroups::pipeline, "groups.pipeline of 2 ranks"},
                                     {&ProcessGroups::expert, "groups.expert of 2 ranks"}}) {
    ContextOptions options = {.num_threads = 1};
    options.groups.*member = handles[0].get();
    const auto context = Value(Context::Create(options));
    const Status status = LlamaModel::Create(context.get(), Config(), {}).status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find(name), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace te
