// The layout against tables worked out by hand from Megatron-Core's order, tp-cp-ep-dp-pp.
#include "te_core/comm/parallel_state.h"

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_core/comm/in_process.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::FailsWith;
using test::IsOk;

using Groups = std::vector<std::vector<int32_t>>;

const std::map<std::string, Communicator * ProcessGroups::*>& Members() {
  static const std::map<std::string, Communicator* ProcessGroups::*> members = {
      {"data", &ProcessGroups::data},
      {"tensor", &ProcessGroups::tensor},
      {"context", &ProcessGroups::context},
      {"pipeline", &ProcessGroups::pipeline},
      {"expert", &ProcessGroups::expert},
      {"expert_tensor", &ProcessGroups::expert_tensor},
      {"expert_data", &ProcessGroups::expert_data},
      {"tensor_context", &ProcessGroups::tensor_context},
      {"data_context", &ProcessGroups::data_context},
      {"tensor_context_data", &ProcessGroups::tensor_context_data},
      {"tensor_pipeline", &ProcessGroups::tensor_pipeline},
      {"tensor_expert", &ProcessGroups::tensor_expert},
      {"tensor_expert_pipeline", &ProcessGroups::tensor_expert_pipeline},
      {"embedding", &ProcessGroups::embedding}};
  return members;
}

// Each rank's group of each name, as the ranks of the world in it; groups of one are left out.
std::map<std::string, std::map<int, std::vector<int32_t>>> GroupsOf(int ranks,
                                                                    const ParallelSizes& sizes) {
  std::map<std::string, std::map<int, std::vector<int32_t>>> out;
  std::mutex mutex;
  EXPECT_TRUE(IsOk(RunRanks({.ranks = ranks}, [&](Communicator* world) -> Status {
    TE_ASSIGN_OR_RETURN(const auto parallel, ParallelState::Create(world, sizes));
    for (const auto& [name, member] : Members()) {
      Communicator* const group = parallel->groups().*member;
      if (group == nullptr) continue;
      EXPECT_EQ(group->name(), name);
      EXPECT_GT(group->size(), 1);
      const int32_t me = world->rank();
      std::vector<int32_t> all(static_cast<size_t>(group->size()));
      TE_RETURN_IF_ERROR(group->AllGather({}, ConstTensorView(&me, DType::kInt32, {1}),
                                          TensorView(all.data(), DType::kInt32, {group->size()})));
      EXPECT_EQ(all[static_cast<size_t>(group->rank())], me);
      const std::lock_guard lock(mutex);
      out[name][me] = all;
    }
    // What an incomplete set of groups would be refused for, this one is not.
    return CompleteGroups(parallel->groups()).status();
  })));
  return out;
}

void ExpectLayout(int ranks, const ParallelSizes& sizes,
                  const std::map<std::string, Groups>& want) {
  const auto got = GroupsOf(ranks, sizes);
  for (const auto& [name, by_rank] : got) EXPECT_TRUE(want.contains(name)) << name;
  for (const auto& [name, groups] : want) {
    ASSERT_TRUE(got.contains(name)) << name;
    size_t members = 0;
    for (const std::vector<int32_t>& group : groups) {
      for (const int32_t rank : group) EXPECT_EQ(got.at(name).at(rank), group) << name;
      members += group.size();
    }
    EXPECT_EQ(got.at(name).size(), members) << name;
  }
}

TEST(ParallelStateTest, TheExampleOfMegatron) {
  // 16 ranks, tensor 2, pipeline 4: the groups that its documentation lists.
  const Groups data = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {8, 10}, {9, 11}, {12, 14}, {13, 15}};
  const Groups tensor = {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}};
  const Groups pipeline = {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}};
  const Groups stages = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}};
  const Groups columns = {{0, 1, 4, 5, 8, 9, 12, 13}, {2, 3, 6, 7, 10, 11, 14, 15}};
  ExpectLayout(16, {.tensor = 2, .pipeline = 4},
               {{"data", data},
                {"tensor", tensor},
                {"pipeline", pipeline},
                {"tensor_context", tensor},
                {"data_context", data},
                {"tensor_context_data", stages},
                {"tensor_pipeline", columns},
                {"expert_tensor", tensor},
                {"expert_data", data},
                {"tensor_expert", tensor},
                {"tensor_expert_pipeline", columns},
                {"embedding", {{0, 12}, {1, 13}, {2, 14}, {3, 15}}}});
}

TEST(ParallelStateTest, EveryDimensionAndExpertsOfTheirOwnTensorSize) {
  // rank = tensor + 2 context + 4 data + 8 pipeline = expert + 2 expert_data + 8 pipeline
  ExpectLayout(
      16, {.tensor = 2, .context = 2, .pipeline = 2, .expert = 2, .expert_tensor = 1},
      {{"tensor", {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}},
       {"context", {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {8, 10}, {9, 11}, {12, 14}, {13, 15}}},
       {"data", {{0, 4}, {1, 5}, {2, 6}, {3, 7}, {8, 12}, {9, 13}, {10, 14}, {11, 15}}},
       {"pipeline", {{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}}},
       {"tensor_context", {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}}},
       {"data_context", {{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}},
       {"tensor_context_data", {{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}}},
       {"tensor_pipeline", {{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}}},
       {"expert", {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}},
       {"expert_data", {{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}},
       {"tensor_expert", {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}},
       {"tensor_expert_pipeline", {{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}}},
       {"embedding", {{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}}}});
}

TEST(ParallelStateTest, ExpertsOverDataParallelRanks) {
  // rank = tensor + 2 data = expert_tensor + 2 expert + 4 expert_data
  ExpectLayout(8, {.tensor = 2, .expert = 2},
               {{"tensor", {{0, 1}, {2, 3}, {4, 5}, {6, 7}}},
                {"data", {{0, 2, 4, 6}, {1, 3, 5, 7}}},
                {"tensor_context", {{0, 1}, {2, 3}, {4, 5}, {6, 7}}},
                {"data_context", {{0, 2, 4, 6}, {1, 3, 5, 7}}},
                {"tensor_context_data", {{0, 1, 2, 3, 4, 5, 6, 7}}},
                {"tensor_pipeline", {{0, 1}, {2, 3}, {4, 5}, {6, 7}}},
                {"expert", {{0, 2}, {1, 3}, {4, 6}, {5, 7}}},
                {"expert_tensor", {{0, 1}, {2, 3}, {4, 5}, {6, 7}}},
                {"expert_data", {{0, 4}, {1, 5}, {2, 6}, {3, 7}}},
                {"tensor_expert", {{0, 1, 2, 3}, {4, 5, 6, 7}}},
                {"tensor_expert_pipeline", {{0, 1, 2, 3}, {4, 5, 6, 7}}}});
}

TEST(ParallelStateTest, OneDimensionAloneAndNoneAtAll) {
  for (const int ranks : {2, 3}) {
    std::vector<int32_t> all;
    for (int r = 0; r < ranks; ++r) all.push_back(r);
    // Data: of experts, too.
    ExpectLayout(ranks, {},
                 {{"data", {all}},
                  {"data_context", {all}},
                  {"tensor_context_data", {all}},
                  {"expert_data", {all}}});
  }
  ExpectLayout(1, {}, {});
  const auto alone = ParallelState::Create(nullptr, {});
  ASSERT_TRUE(IsOk(alone.status()));
  for (const auto& [name, member] : Members()) EXPECT_EQ((*alone)->groups().*member, nullptr);
  EXPECT_EQ((*alone)->sizes().data, 1);
  EXPECT_EQ(GroupSize((*alone)->groups().tensor), 1);
  EXPECT_EQ(GroupRank((*alone)->groups().tensor), 0);
}

TEST(ParallelStateTest, SizesThatAreNotGivenFollowFromTheOthers) {
  const auto sizes = CompleteSizes(
      {.tensor = 2, .context = 3, .pipeline = 2, .expert = 4, .expert_tensor = 1}, 24);
  ASSERT_TRUE(IsOk(sizes.status()));
  EXPECT_EQ(sizes->data, 2);
  EXPECT_EQ(sizes->expert_tensor, 1);
  EXPECT_EQ(sizes->expert_data, 3);
  EXPECT_TRUE(IsOk(CompleteSizes({.tensor = 2, .data = 4}, 8).status()));
}

TEST(ParallelStateTest, RefusesSizesWhoseProductIsNotTheWorld) {
  const auto refused = [](const ParallelSizes& sizes, int ranks, const char* part) {
    EXPECT_TRUE(
        FailsWith(CompleteSizes(sizes, ranks).status(), StatusCode::kInvalidArgument, part));
  };
  refused({.tensor = 3}, 8,
          "8 ranks cannot be laid out as tensor 3, context 1, pipeline 1, data (what is left); "
          "expected sizes whose product is 8");
  refused({.tensor = 2, .data = 2}, 8, "tensor 2, context 1, pipeline 1, data 2; expected");
  refused({.tensor = 2, .context = 2, .pipeline = 4}, 8, "tensor 2, context 2, pipeline 4");
  refused({.expert = 3}, 8, "expert_tensor 1, expert 3, pipeline 1, expert_data (what is left)");
  refused({.tensor = 2, .expert = 8}, 8, "expert_tensor 2, expert 8");
  refused({.expert = 2, .expert_data = 8}, 8, "expert_data 8");
  refused({.tensor = 0}, 8, "the size of tensor is 0; expected 1 or more");
  refused({.pipeline = -2}, 8, "the size of pipeline is -2");
  refused({.data = -1}, 8, "the size of data is -1; expected 0 or more (0: what follows");
  refused({.expert_tensor = -1}, 8, "the size of expert_tensor is -1");
  refused({}, 0, "the number of ranks is 0");
  // Whose product is no int, or 0 of one.
  refused({.tensor = 1 << 30, .context = 1 << 30, .pipeline = 1 << 30}, 8, "tensor 1073741824");
  refused({.tensor = INT32_MAX, .context = INT32_MAX}, 1, "tensor 2147483647");
  refused({.tensor = 1 << 16, .context = 1 << 16}, 1, "context 65536");
}

TEST(ParallelStateTest, SizesThatDifferBetweenRanksAreAnError) {
  for (const ParallelSizes& other :
       {ParallelSizes{.tensor = 4}, ParallelSizes{.context = 2}, ParallelSizes{.pipeline = 2},
        ParallelSizes{.tensor = 2, .expert = 2}, ParallelSizes{}}) {
    for (int odd = 0; odd < 4; ++odd) {
      const Status status = RunRanks({.ranks = 4}, [&](Communicator* world) -> Status {
        TE_ASSIGN_OR_RETURN(const auto parallel,
                            ParallelState::Create(
                                world, world->rank() == odd ? other : ParallelSizes{.tensor = 2}));
        return world->Barrier({});
      });
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
    }
  }
}

// Groups of a size, which send nothing.
class ProcessGroupsTest : public testing::Test {
 protected:
  Communicator* Of(int ranks) {
    auto handles = MakeInProcessWorld({.ranks = ranks});
    EXPECT_TRUE(IsOk(handles.status()));
    groups_.push_back(std::move((*handles)[0]));
    return groups_.back().get();
  }

 private:
  std::vector<std::unique_ptr<Communicator>> groups_;
};

TEST_F(ProcessGroupsTest, UnionsFollowWhereOneDimensionIsLarger) {
  Communicator *one = Of(1), *two = Of(2), *four = Of(4);
  auto groups = CompleteGroups({.data = two, .tensor = one});
  ASSERT_TRUE(IsOk(groups.status()));
  EXPECT_EQ(groups->data_context, two);
  EXPECT_EQ(groups->tensor_context_data, two);
  EXPECT_EQ(groups->tensor_pipeline, nullptr);
  groups = CompleteGroups({.expert = four});
  ASSERT_TRUE(IsOk(groups.status()));
  EXPECT_EQ(groups->tensor_expert, four);
  EXPECT_EQ(groups->tensor_expert_pipeline, four);
}

TEST_F(ProcessGroupsTest, UnionsThatAreMissingOrOfAnotherSizeAreRefused) {
  Communicator *two = Of(2), *three = Of(3), *six = Of(6);
  const auto refused = [](const ProcessGroups& groups, const char* part) {
    EXPECT_TRUE(FailsWith(CompleteGroups(groups).status(), StatusCode::kInvalidArgument, part));
  };
  refused({.data = two, .tensor = three},
          "groups.tensor_context_data has size 1 while the sizes of its dimensions are tensor 3, "
          "context 1, data 2; expected a group of 6");
  refused({.data = two, .tensor = three, .tensor_context_data = two}, "has size 2");
  refused({.data = two, .context = three}, "groups.data_context has size 1");
  refused({.tensor = two, .context = three}, "groups.tensor_context has size 1");
  refused({.tensor_context_data = six}, "groups.tensor_context_data has size 6");
  refused({.tensor = two, .pipeline = three}, "groups.tensor_pipeline");
  refused({.expert = two, .expert_tensor = three}, "groups.tensor_expert ");
  EXPECT_TRUE(
      IsOk(CompleteGroups({.data = two, .tensor = three, .tensor_context_data = six}).status()));
}

}  // namespace
}  // namespace te
