// Delayed scaling over ranks: 2 and 4 ranks, each with its part of a batch, have the scales and
// amax histories of one rank with the whole batch, bit for bit. A rank is a thread with a context.
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>

#include "te_core/comm/in_process.h"
#include "te_core/comm/parallel_state.h"
#include "te_core/layers/linear.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::FailsWith;
using test::IsOk;
using test::Must;
using State = std::vector<DelayedScalingState::Saved>;

constexpr int64_t kBatch = 4, kSequence = 16, kHidden = 64;
constexpr int kSteps = 6;

bool BitEqual(const State& a, const State& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || a[i].format != b[i].format ||
        std::memcmp(&a[i].scale, &b[i].scale, sizeof(float)) != 0 ||
        a[i].amax_history.size() != b[i].amax_history.size() ||
        std::memcmp(a[i].amax_history.data(), b[i].amax_history.data(),
                    a[i].amax_history.size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

struct Part {
  DelayedScalingRecipe recipe = {.amax_history_len = 4};
  bool transformer = false;
  float disturbed = 0;  // added to one element of the last sample's input in step 2
  // Of this rank.
  ProcessGroups groups;
  int64_t first = 0, samples = kBatch;
};

// The samples [first, first + samples) of a step's tensor.
Tensor SamplesOf(Context* context, const Part& run, uint64_t seed, double scale, float disturbed) {
  std::vector<double> all = test::UniformDoubles(kBatch * kSequence * kHidden, seed);
  for (double& value : all) value *= scale;
  all.back() += disturbed;
  const auto begin = all.begin() + run.first * kSequence * kHidden;
  return test::NewTensor(context, DType::kFloat32, {run.samples, kSequence, kHidden},
                         {begin, begin + run.samples * kSequence * kHidden});
}

// kSteps steps of two layers, and the state after each of them.
StatusOr<std::vector<State>> Train(const Part& run) {
  ContextOptions options = {.num_threads = 1, .seed = 7};
  options.groups = run.groups;
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create(options));
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Recipe> recipe, MakeRecipe(run.recipe));
  std::unique_ptr<Layer> layers[2];
  for (int i = 0; i < 2; ++i) {
    const std::string name = fmt::format("layers.{}", i);
    if (run.transformer) {
      TransformerLayerOptions layer = test::SmallLlamaLayer();
      layer.attn_input_format = AttentionFormat::kBshd;
      TE_ASSIGN_OR_RETURN(layers[i], TransformerLayer::Create(context.get(), layer, name));
    } else {
      TE_ASSIGN_OR_RETURN(layers[i], Linear::Create(context.get(),
                                                    {.in_features = kHidden,
                                                     .out_features = kHidden,
                                                     .bias = false,
                                                     .params_dtype = DType::kFloat32},
                                                    name));
    }
    test::Randomize(layers[i].get(), 20 + static_cast<uint64_t>(i), 0.3);
  }
  std::vector<State> states;
  for (int step = 0; step < kSteps; ++step) {
    const auto seed = static_cast<uint64_t>(step);
    const float disturbed = step == 2 ? run.disturbed : 0.0f;
    // Sizes go up and down, so that the largest of a history does, too.
    const Tensor x = SamplesOf(context.get(), run, seed, 1 + (step * 5) % 4, disturbed);
    const Tensor dy = SamplesOf(context.get(), run, 50 + seed, 1e-3 * (1 + (step * 3) % 4), 0);
    Arena arena(context->memory());
    Saved saved[2] = {Saved(&arena), Saved(&arena)};
    TE_ASSIGN_OR_RETURN(const Tensor between, context->NewTensor(DType::kFloat32, x.shape()));
    TE_ASSIGN_OR_RETURN(const Tensor out, context->NewTensor(DType::kFloat32, x.shape()));
    TE_ASSIGN_OR_RETURN(const Tensor dbetween, context->NewTensor(DType::kFloat32, x.shape()));
    TE_ASSIGN_OR_RETURN(const Tensor dx, context->NewTensor(DType::kFloat32, x.shape()));
    context->BeginQuantization(recipe.get(), {});
    Status status;
    for (int i = 0; i < 2 && status.ok(); ++i) {
      ForwardArgs args;
      args.input = i == 0 ? x : between;
      args.output = (i == 0 ? between : out).view();
      status = layers[i]->Forward(args, &saved[i]);
    }
    TE_RETURN_IF_ERROR(status);
    TE_RETURN_IF_ERROR(context->EndQuantization());
    for (int i = 1; i >= 0; --i) {
      BackwardArgs args;
      args.doutput = i == 1 ? dy : dbetween;
      args.dinput = (i == 1 ? dbetween : dx).view();
      TE_RETURN_IF_ERROR(layers[i]->Backward(args, &saved[i]));
    }
    TE_ASSIGN_OR_RETURN(State state, context->delayed_scaling().Export(context->exec()));
    states.push_back(std::move(state));
    // Other weights in the next step, the same on every rank.
    for (auto& layer : layers) test::Randomize(layer.get(), 100 + seed, 0.1 * (1 + step % 3));
  }
  return states;
}

// By rank of the world.
std::vector<std::vector<State>> TrainOnRanks(int ranks, const ParallelSizes& sizes, Part run) {
  std::vector<std::vector<State>> out(static_cast<size_t>(ranks));
  EXPECT_TRUE(IsOk(RunRanks({.ranks = ranks}, [&](Communicator* world) -> Status {
    TE_ASSIGN_OR_RETURN(const auto parallel, ParallelState::Create(world, sizes));
    Part mine = run;
    mine.groups = parallel->groups();
    mine.samples = kBatch / GroupSize(mine.groups.data);
    mine.first = mine.samples * GroupRank(mine.groups.data);
    TE_ASSIGN_OR_RETURN(out[static_cast<size_t>(world->rank())], Train(mine));
    return OkStatus();
  })));
  return out;
}

class DelayedScalingRanksTest : public testing::TestWithParam<bool> {};

TEST_P(DelayedScalingRanksTest, RanksWithPartsOfABatchHaveTheStateOfOneRankWithAll) {
  for (const AmaxComputeAlgo algo : {AmaxComputeAlgo::kMax, AmaxComputeAlgo::kMostRecent}) {
    const Part run = {.recipe = {.amax_history_len = 4, .amax_compute_algo = algo},
                      .transformer = GetParam()};
    const std::vector<State> want = Must(Train(run));
    for (const int ranks : {2, 4}) {
      const auto got = TrainOnRanks(ranks, {}, run);
      for (int r = 0; r < ranks; ++r) {
        ASSERT_EQ(got[static_cast<size_t>(r)].size(), static_cast<size_t>(kSteps));
        for (size_t step = 0; step < kSteps; ++step) {
          EXPECT_TRUE(BitEqual(got[static_cast<size_t>(r)][step], want[step]))
              << ranks << " ranks, rank " << r << " after step " << step;
        }
      }
    }
    // Twins that must not agree: a batch with one larger element, which the last rank alone has;
    // and ranks that do not reduce.
    Part twin = run;
    twin.disturbed = 50;
    const std::vector<State> disturbed = Must(Train(twin));
    EXPECT_TRUE(BitEqual(disturbed[1], want[1]));
    EXPECT_FALSE(BitEqual(disturbed[2], want[2]));
    const auto joined = TrainOnRanks(2, {}, twin);
    EXPECT_TRUE(BitEqual(joined[0][2], disturbed[2]));
    twin.recipe.reduce_amax = false;
    const auto apart = TrainOnRanks(2, {}, twin);
    EXPECT_FALSE(BitEqual(apart[0][2], disturbed[2]));
    EXPECT_FALSE(BitEqual(apart[0][2], apart[1][2]));
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, DelayedScalingRanksTest, testing::Values(false, true),
                         [](const auto& info) {
                           return info.param ? "TransformerLayer" : "Linear";
                         });

TEST(DelayedScalingGroupsTest, ReducesOverTensorAndDataAndNotOverPipeline) {
  const Part run;
  const std::vector<State> want = Must(Train(run));
  // Ranks of one tensor-parallel group have the same samples.
  for (const auto& state : TrainOnRanks(4, {.tensor = 2}, run)) {
    ASSERT_EQ(state.size(), want.size());
    EXPECT_TRUE(BitEqual(state.back(), want.back()));
  }
  // Two stages, of which the second one sees larger numbers: the first one's scales do not change.
  std::vector<std::vector<State>> stages(4);
  EXPECT_TRUE(IsOk(RunRanks({.ranks = 4}, [&](Communicator* world) -> Status {
    TE_ASSIGN_OR_RETURN(const auto parallel, ParallelState::Create(world, {.pipeline = 2}));
    Part mine;
    mine.groups = parallel->groups();
    mine.samples = kBatch / 2;
    mine.first = mine.samples * GroupRank(mine.groups.data);
    mine.disturbed = GroupRank(mine.groups.pipeline) == 1 ? 50.0f : 0.0f;
    TE_ASSIGN_OR_RETURN(stages[static_cast<size_t>(world->rank())], Train(mine));
    return OkStatus();
  })));
  const std::vector<State> disturbed = Must(Train({.disturbed = 50}));
  for (size_t r = 0; r < 4; ++r)
    EXPECT_TRUE(BitEqual(stages[r].back(), (r < 2 ? want : disturbed).back())) << r;
}

// Counts what goes through it.
class CountingCommunicator : public Communicator {
 public:
  explicit CountingCommunicator(Communicator* group) : group_(group) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  const std::string& name() const override { return group_->name(); }
  Status Barrier(const Exec& exec) override { return group_->Barrier(exec); }
  void Abort(const Status& why) override { group_->Abort(why); }
  std::vector<int64_t> maxima;  // elements of each all_reduce of amaxes
  int checks = 0;

 protected:
  Status DoAllReduce(const Exec& exec, TensorView data, ReduceOp op) override {
    EXPECT_EQ(op, ReduceOp::kMax);
    if (data.dtype() == DType::kFloat32) {
      maxima.push_back(data.elements());
    } else {
      ++checks;
    }
    return group_->AllReduce(exec, data, op);
  }
  Status DoAllGather(const Exec&, ConstTensorView, TensorView) override { return Unexpected(); }
  Status DoReduceScatter(const Exec&, ConstTensorView, TensorView, ReduceOp) override {
    return Unexpected();
  }
  Status DoBroadcast(const Exec&, TensorView, int) override { return Unexpected(); }
  Status DoAllToAll(const Exec&, ConstTensorView, TensorView, std::span<const int64_t>,
                    std::span<const int64_t>) override {
    return Unexpected();
  }
  Status DoExchange(const Exec&, std::span<const Transfer>) override { return Unexpected(); }
  StatusOr<std::unique_ptr<Communicator>> DoSplit(int, int, std::string_view) override {
    return Unexpected();
  }

 private:
  static Status Unexpected() { return Internal("not expected"); }
  Communicator* group_;
};

TEST(DelayedScalingGroupsTest, OneReductionADirectionWhateverTheNumberOfPools) {
  EXPECT_TRUE(IsOk(RunRanks({.ranks = 2}, [](Communicator* world) -> Status {
    CountingCommunicator counted(world);
    Part run;
    run.groups.data = &counted;
    run.samples = kBatch / 2;
    run.first = run.samples * world->rank();
    TE_RETURN_IF_ERROR(Train(run).status());
    // Input and weight of two layers; gradients of their outputs.
    std::vector<int64_t> want;
    for (int step = 0; step < kSteps; ++step) want.insert(want.end(), {4, 2});
    EXPECT_EQ(counted.maxima, want);
    EXPECT_EQ(counted.checks, 2);  // in the first step alone
    return OkStatus();
  })));
  // Several pools: two history lengths, formats and margins of slots in one state.
  EXPECT_TRUE(IsOk(RunRanks({.ranks = 3}, [](Communicator* world) -> Status {
    CountingCommunicator counted(world);
    ContextOptions options = {.num_threads = 1};
    options.groups.data = &counted;
    TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create(options));
    DelayedScalingState& state = context->delayed_scaling();
    std::vector<DelayedScalingState::Slot*> slots;
    for (int i = 0; i < 5; ++i) {
      const TensorQuantization quantization = {.format = QuantFormat::kFloat8E4M3,
                                               .margin = i % 2,
                                               .amax_history_len = 1 + i % 3,
                                               .reduce_amax = i != 4};
      TE_ASSIGN_OR_RETURN(DelayedScalingState::Slot * slot,
                          state.NewSlot(context->exec(), fmt::format("m.{}", i), quantization,
                                        ScalingDirection::kForward));
      *slot->amax() = static_cast<float>(10 * i + (world->rank() + i) % 3);
      slots.push_back(slot);
    }
    TE_RETURN_IF_ERROR(state.Update(context->exec(), ScalingDirection::kForward));
    for (int i = 0; i < 5; ++i) {
      const float amax = static_cast<float>(10 * i) +
                         (i == 4 ? static_cast<float>((world->rank() + i) % 3) : 2.0f);
      EXPECT_EQ(*slots[static_cast<size_t>(i)]->scale(), (i % 2 == 1 ? 224.0f : 448.0f) / amax)
          << i;
    }
    EXPECT_EQ(counted.maxima, std::vector<int64_t>{4});
    return OkStatus();
  })));
}

// As many slots of the same pools on both ranks, but of other modules.
TEST(DelayedScalingGroupsTest, RanksThatRunOtherModulesAreAnErrorOnEach) {
  const TensorQuantization quantization = {.format = QuantFormat::kFloat8E4M3,
                                           .amax_history_len = 2};
  const auto run = [&](bool differs, Status* seen) {
    return RunRanks({.ranks = 2}, [&](Communicator* world) -> Status {
      ContextOptions options = {.num_threads = 1};
      options.groups.data = world;
      TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create(options));
      DelayedScalingState& state = context->delayed_scaling();
      const bool reverse = differs && world->rank() == 1;
      for (const char* name : {reverse ? "b.input" : "a.input", reverse ? "a.input" : "b.input"}) {
        TE_RETURN_IF_ERROR(
            state.NewSlot(context->exec(), name, quantization, ScalingDirection::kForward)
                .status());
      }
      seen[world->rank()] = state.Update(context->exec(), ScalingDirection::kForward);
      return OkStatus();
    });
  };
  Status seen[2];
  EXPECT_TRUE(IsOk(run(false, seen)));
  for (const Status& status : seen) EXPECT_TRUE(IsOk(status));
  EXPECT_TRUE(IsOk(run(true, seen)));
  for (const Status& status : seen) {
    EXPECT_TRUE(FailsWith(status, StatusCode::kFailedPrecondition,
                          "the ranks of group 'world' have other tensors with delayed scaling"));
  }
}

// What would be wrong over ranks, and is refused where it is known.
TEST(LayersOverRanksTest, DropoutAndAttentionOverContextAreRefusedByName) {
  auto world = Must(MakeInProcessWorld({.ranks = 2}));
  ContextOptions options = {.num_threads = 1};
  options.groups.context = world[0].get();
  const auto context = Must(Context::Create(options));
  EXPECT_TRUE(
      FailsWith(TransformerLayer::Create(context.get(), test::SmallLlamaLayer(), "layer").status(),
                StatusCode::kUnsupported, "attention over a context-parallel group of 2 ranks"));
  options.groups = {.data = world[0].get()};
  const auto data = Must(Context::Create(options));
  for (const bool hidden : {false, true}) {
    TransformerLayerOptions dropping = test::SmallLlamaLayer();
    (hidden ? dropping.hidden_dropout : dropping.attention_dropout) = 0.1f;
    auto layer = Must(TransformerLayer::Create(data.get(), dropping, "layer"));
    test::Randomize(layer.get(), 1, 0.3);
    const Tensor x = SamplesOf(data.get(), {}, 3, 1, 0);
    const Tensor y = Must(data->NewTensor(DType::kFloat32, x.shape()));
    ForwardArgs args;
    args.input = x;
    args.output = y.view();
    Arena arena(data->memory());
    Saved saved(&arena);
    EXPECT_TRUE(FailsWith(layer->Forward(args, &saved), StatusCode::kUnsupported,
                          hidden ? "hidden_dropout is 0.1" : "attention_dropout is 0.1"));
    EXPECT_TRUE(IsOk(layer->Forward(args, nullptr)));  // inference draws nothing
  }
}

}  // namespace
}  // namespace te
