#include "te_core/context.h"

#include <cmath>

#include "gtest/gtest.h"
#include "te_core/comm/in_process.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

std::unique_ptr<Context> NewContext(const ContextOptions& options = {}) {
  auto context = Context::Create(options);
  EXPECT_TRUE(context.ok());
  return std::move(context).value();
}

TEST(ContextTest, RefusesWhatIsNotBuiltByName) {
  EXPECT_TRUE(test::FailsWith(Context::Create({.device = "tpu"}).status(), StatusCode::kUnsupported,
                              "tpu"));
  EXPECT_TRUE(test::FailsWith(Context::Create({.num_threads = -1}).status(),
                              StatusCode::kInvalidArgument, "num_threads is -1"));
}

TEST(ContextTest, TakesGroupsAndCompletesTheirUnions) {
  const auto handles = MakeInProcessWorld({.ranks = 2});
  ASSERT_TRUE(handles.ok());
  ContextOptions options;
  options.groups.data = (*handles)[0].get();
  auto context = Context::Create(options);
  ASSERT_TRUE(test::IsOk(context.status()));
  EXPECT_EQ((*context)->groups().data_context, options.groups.data);
  EXPECT_EQ((*context)->groups().tensor_context_data, options.groups.data);
  options.groups.tensor = (*handles)[1].get();
  EXPECT_TRUE(test::FailsWith(Context::Create(options).status(), StatusCode::kInvalidArgument,
                              "groups.tensor_context_data has size 1"));
}

// The CPU, as if it could record.
class RecordingDevice : public Device {
 public:
  bool can_record(const Exec&) const override { return true; }
  const char* name() const override { return cpu_->name(); }
  const KernelTable& kernels() const override { return cpu_->kernels(); }
  int default_threads() const override { return 1; }
  StatusOr<void*> NewStream() override { return cpu_->NewStream(); }
  void FreeStream(void* stream) override { cpu_->FreeStream(stream); }
  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    return cpu_->NewLibraryState();
  }
  Status CopyToHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyToHost(exec, from, to, bytes);
  }
  Status CopyFromHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyFromHost(exec, from, to, bytes);
  }
  Status Zero(const Exec& exec, void* at, size_t bytes) override {
    return cpu_->Zero(exec, at, bytes);
  }
  Status Synchronize(const Exec& exec) override { return cpu_->Synchronize(exec); }
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    return cpu_->NewHostMirror(bytes);
  }
  StatusOr<void*> Allocate(size_t bytes) override { return cpu_->Allocate(bytes); }
  void Free(void* at, size_t bytes) override { cpu_->Free(at, bytes); }

 private:
  std::unique_ptr<Device> cpu_ = std::move(MakeDevice("cpu")).value();
};

TEST(ContextTest, AStepIsRecordedOnlyWhereItsGroupsCan) {
  const auto one = MakeInProcessWorld({.ranks = 1}), two = MakeInProcessWorld({.ranks = 2});
  ASSERT_TRUE(one.ok() && two.ok());
  for (const auto& [group, can] : {std::pair<Communicator*, bool>{nullptr, true},
                                   {(*one)[0].get(), true},
                                   {(*two)[0].get(), false}}) {
    ContextOptions options;
    options.groups.data = group;
    auto context = Context::Create(options, std::make_unique<RecordingDevice>());
    ASSERT_TRUE(test::IsOk(context.status()));
    EXPECT_EQ((*context)->can_record(), can);
  }
}

TEST(ContextTest, OperationsHearWhetherTheyMayBeNondeterministic) {
  EXPECT_FALSE(NewContext()->exec().allow_nondeterministic);
  EXPECT_TRUE(NewContext({.allow_nondeterministic = true})->exec().allow_nondeterministic);
}

TEST(ContextTest, WithoutASecondQueueTheFirstIsUsedForBoth) {
  const auto context = NewContext();
  EXPECT_FALSE(context->has_queue_beside());
  const Exec* given = nullptr;
  EXPECT_TRUE(test::IsOk(context->RunBeside([&](const Exec& exec) {
    given = &exec;
    return OkStatus();
  })));
  EXPECT_EQ(given, &context->exec());
  EXPECT_TRUE(test::IsOk(context->JoinBeside()));
  EXPECT_TRUE(test::FailsWith(context->RunBeside([](const Exec&) { return Internal("here"); }),
                              StatusCode::kInternal, "here"));
}

TEST(ContextTest, TwoContextsShareNothing) {
  auto a = NewContext({.num_threads = 1, .seed = 1}), b = NewContext({.num_threads = 2, .seed = 2});
  EXPECT_EQ(a->exec().num_threads, 1);
  EXPECT_EQ(b->exec().num_threads, 2);
  EXPECT_NE(a->scalars(), b->scalars());
  EXPECT_NE(a->exec().libraries, b->exec().libraries);
  EXPECT_EQ(a->NewRandomStream(), b->NewRandomStream());  // each counts for itself
  ASSERT_TRUE(test::IsOk(a->WriteScalars({.loss_sum = 3, .step = 4})));
  EXPECT_EQ(b->ReadScalars()->step, 0);
  EXPECT_EQ(a->ReadScalars()->step, 4);
  EXPECT_EQ(a->ReadScalars()->loss_sum, 3);
  const size_t held = b->memory_statistics().bytes;
  auto tensor = a->NewTensor(DType::kFloat32, {100});
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(b->memory_statistics().bytes, held);
}

TEST(ContextTest, RandomSequencesDifferByStreamMicroBatchAndStep) {
  auto context = NewContext({.seed = 5});
  const uint32_t first = context->NewRandomStream(), second = context->NewRandomStream();
  const auto block = [&](uint32_t stream) {
    return Philox::Block(context->Random(stream).Resolved(), 0);
  };
  const auto base = block(first);
  EXPECT_EQ(block(first), base);
  EXPECT_NE(block(second), base);
  context->set_micro_batch(1);
  const auto other_batch = block(first);
  EXPECT_NE(other_batch, base);
  context->set_micro_batch(0);
  // A state taken before the step advances sees the new number: a captured graph never changes.
  const RandomState state = context->Random(first);
  // Micro-batches of a step must not meet those of the next one: the optimizer advances rng_offset
  // past them.
  ASSERT_TRUE(test::IsOk(context->WriteScalars({.rng_offset = 1000})));
  EXPECT_NE(Philox::Block(state.Resolved(), 0), base);
  EXPECT_NE(Philox::Block(state.Resolved(), 0), other_batch);
}

TEST(ContextTest, CopiesAndZeroesDenseTensorsAlone) {
  auto context = NewContext();
  auto tensor = context->NewTensor(DType::kFloat32, {2, 3});
  ASSERT_TRUE(tensor.ok());
  const float values[6] = {1, 2, 3, 4, 5, 6};
  float back[6] = {};
  ASSERT_TRUE(test::IsOk(context->CopyFromHost(values, tensor->view())));
  ASSERT_TRUE(test::IsOk(context->CopyToHost(*tensor, back)));
  EXPECT_EQ(back[5], 6);
  const TensorView column = tensor->view().Slice(1, 1, 2);
  EXPECT_TRUE(test::FailsWith(context->CopyToHost(column, back), StatusCode::kInvalidArgument,
                              "not dense"));
  EXPECT_TRUE(test::FailsWith(context->CopyFromHost(values, column), StatusCode::kInvalidArgument,
                              "not dense"));
  EXPECT_TRUE(test::FailsWith(context->Zero(column), StatusCode::kInvalidArgument, "not dense"));
  ASSERT_TRUE(test::IsOk(context->Zero(tensor->view())));
  ASSERT_TRUE(test::IsOk(context->CopyToHost(*tensor, back)));
  for (float v : back) EXPECT_EQ(v, 0);
}

TEST(TensorTest, CountsWhatItHoldsAndGivesItBack) {
  auto context = NewContext();
  const auto before = context->memory_statistics();
  {
    auto a = context->NewTensor(DType::kBFloat16, {3, 5});
    ASSERT_TRUE(a.ok());
    EXPECT_EQ(context->memory_statistics().bytes, before.bytes + 30);
    EXPECT_EQ(context->memory_statistics().allocations, before.allocations + 1);
    Tensor moved = std::move(*a);
    EXPECT_FALSE(a->defined());
    EXPECT_TRUE(moved.owned());
    Tensor borrowed = Tensor::Borrow(moved.view());
    EXPECT_FALSE(borrowed.owned());
    EXPECT_EQ(borrowed.view().data(), moved.view().data());
    Tensor other;
    other = std::move(moved);
    EXPECT_EQ(context->memory_statistics().bytes, before.bytes + 30);
  }
  EXPECT_EQ(context->memory_statistics().bytes, before.bytes);
  EXPECT_GE(context->memory_statistics().peak_bytes, before.bytes + 30);
  auto empty = context->NewTensor(DType::kFloat32, {0, 4});
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->defined());
}

TEST(TensorTest, RefusesImpossibleShapes) {
  auto context = NewContext();
  EXPECT_TRUE(test::FailsWith(context->NewTensor(DType::kFloat32, {2, -1}).status(),
                              StatusCode::kInvalidArgument, "[2, -1]"));
  EXPECT_TRUE(test::FailsWith(
      context->NewTensor(DType::kFloat32, {int64_t{1} << 40, int64_t{1} << 40}).status(),
      StatusCode::kInvalidArgument, "overflows"));
  EXPECT_EQ(context->NewTensor(DType::kFloat32, {int64_t{1} << 50}).status().code(),
            StatusCode::kOutOfMemory);
}

}  // namespace
}  // namespace te
