// Parameters, their names and gradients, and the pool of saved activations.
#include "te_core/layers/layer.h"

#include "gtest/gtest.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

std::unique_ptr<Context> NewContext() {
  auto context = Context::Create({});
  EXPECT_TRUE(context.ok());
  return std::move(context).value();
}

// Two parameters, one of them in slices; counts its backward halves.
class TwoParameters : public Layer {
 public:
  explicit TwoParameters(Context* context) : Layer(context, "layer") {
    whole_.name = "bias";
    whole_.value = context->NewTensor(DType::kFloat32, {3}).value();
    sliced_.name = "weight";
    sliced_.value = context->NewTensor(DType::kBFloat16, {5, 2}).value();
    sliced_.slices = {{"query_weight", 0, 3}, {"key_weight", 3, 2}};
  }
  Capabilities capabilities() const override { return {}; }
  Status Forward(const ForwardArgs&, Saved*) override { return OkStatus(); }
  Status BackwardInput(const BackwardArgs&, Saved*) override {
    calls_ += "input ";
    return fail_input_ ? Internal("no input gradient") : OkStatus();
  }
  Status BackwardWeight(const BackwardArgs&, Saved*) override {
    calls_ += "weight ";
    return OkStatus();
  }
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override {
    visit(JoinName(prefix, "inner.weight"), sliced_);
    visit(JoinName(prefix, "inner.bias"), whole_);
  }
  std::string Describe(int) const override { return "TwoParameters()"; }

  Parameter whole_, sliced_;
  std::string calls_;
  bool fail_input_ = false;
};

TEST(LayerTest, SlicesStandUnderTheirOwnNames) {
  auto context = NewContext();
  TwoParameters layer(context.get());
  const auto named = layer.NamedParameters();
  ASSERT_EQ(named.size(), 3u);
  EXPECT_EQ(named[0].name, "inner.query_weight");
  EXPECT_EQ(named[1].name, "inner.key_weight");
  EXPECT_EQ(named[2].name, "inner.bias");
  EXPECT_EQ(named[1].parameter, &layer.sliced_);
  EXPECT_EQ(named[1].value().shape(), (Shape{2, 2}));
  EXPECT_EQ(named[1].value().data(), layer.sliced_.value.view().as<bfloat16>() + 6);
  EXPECT_FALSE(named[1].grad().defined());
  EXPECT_EQ(layer.Parameters(), (std::vector<Parameter*>{&layer.sliced_, &layer.whole_}));
}

TEST(LayerTest, GradientsAreMadeOnceForTrainableParametersAlone) {
  auto context = NewContext();
  TwoParameters layer(context.get());
  layer.whole_.requires_grad = false;
  ASSERT_TRUE(test::IsOk(layer.EnsureGradients()));
  EXPECT_FALSE(layer.whole_.grad.defined());
  ASSERT_TRUE(layer.sliced_.grad.defined());
  EXPECT_EQ(layer.sliced_.grad.dtype(), DType::kBFloat16);
  EXPECT_EQ(layer.sliced_.grad.shape(), (Shape{5, 2}));
  const void* address = layer.sliced_.grad.view().data();
  const int64_t allocations = context->memory_statistics().allocations;
  ASSERT_TRUE(test::IsOk(layer.EnsureGradients()));
  EXPECT_EQ(layer.sliced_.grad.view().data(), address);
  EXPECT_EQ(context->memory_statistics().allocations, allocations);
}

TEST(LayerTest, EveryWriteBumpsTheVersion) {
  auto context = NewContext();
  TwoParameters layer(context.get());
  const uint64_t version = layer.whole_.version;
  layer.whole_.MutableValue();
  EXPECT_EQ(layer.whole_.version, version + 1);
}

TEST(LayerTest, BackwardIsItsTwoHalvesAndStopsAtAnError) {
  auto context = NewContext();
  TwoParameters layer(context.get());
  ASSERT_TRUE(test::IsOk(layer.Backward({}, nullptr)));
  EXPECT_EQ(layer.calls_, "input weight ");
  layer.fail_input_ = true;
  EXPECT_EQ(layer.Backward({}, nullptr).code(), StatusCode::kInternal);
  EXPECT_EQ(layer.calls_, "input weight input ");
}

struct Numbered : SavedState {
  int number = 0;
};

TEST(SavedTest, StatesBelongToTheirNodeForGood) {
  auto context = NewContext();
  SavedPool pool(context->memory());
  auto slot = pool.Acquire();
  ASSERT_TRUE(slot.ok());
  Saved& root = (*slot)->root;
  root.state<Numbered>().number = 1;
  Saved* child = root.child(3);
  child->state<Numbered>().number = 2;
  EXPECT_EQ(root.child(3), child);
  EXPECT_EQ(root.state<Numbered>().number, 1);
  EXPECT_EQ(child->state<Numbered>().number, 2);
  EXPECT_EQ(child->arena(), root.arena());
}

TEST(SavedPoolTest, SlotsInFlightAreDistinctAndFreedOnesAreUsedAgain) {
  auto context = NewContext();
  SavedPool pool(context->memory());
  auto a = pool.Acquire(), b = pool.Acquire();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->get(), b->get());
  EXPECT_EQ(pool.in_flight(), 2u);
  auto first = (*a)->root.Allocate(DType::kFloat32, {1000}),
       second = (*b)->root.Allocate(DType::kFloat32, {1000});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first->data(), second->data());
  SavedPool::Slot* freed = a->get();
  a->reset();  // first in, first out: a pipeline frees the oldest
  EXPECT_EQ(pool.in_flight(), 1u);
  const int64_t allocations = context->memory_statistics().allocations;
  auto c = pool.Acquire();
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(c->get(), freed);
  auto again = (*c)->root.Allocate(DType::kFloat32, {1000});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->data(), first->data());
  EXPECT_EQ(context->memory_statistics().allocations, allocations);
  EXPECT_GE(pool.capacity_bytes(), 8000u);
}

TEST(SavedPoolTest, GrownArenasBecomeOneBlockAndThenNothingIsAllocated) {
  auto context = NewContext();
  SavedPool pool(context->memory());
  int64_t allocations = 0;
  for (int pass = 0; pass < 4; ++pass) {
    auto slot = pool.Acquire();
    ASSERT_TRUE(slot.ok());
    for (int i = 0; i < 5; ++i) ASSERT_TRUE((*slot)->root.Allocate(DType::kUInt8, {700000}).ok());
    if (pass == 1) allocations = context->memory_statistics().allocations;
  }
  EXPECT_EQ(context->memory_statistics().allocations, allocations);
}

}  // namespace
}  // namespace te
