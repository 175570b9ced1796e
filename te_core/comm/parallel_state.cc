#include "te_core/comm/parallel_state.h"

#include <array>
#include <string>

namespace te {
namespace {

// A dimension's place in the order of ranks, the fastest first. Context is a dimension of the dense
// layout alone, expert of the experts' alone.
enum Dimension : unsigned { kTensor = 0, kContext, kExpert, kData, kPipeline, kDimensions };

using Layout = std::array<int, kDimensions>;  // sizes

struct Place {
  int color = 0;  // the rank's place in the dimensions that the group does not have
  int rank = 0;   // its place in those that it has
  int size = 1;
};

Place PlaceOf(int rank, const Layout& layout, unsigned mask) {
  Place place;
  int colors = 1;
  for (unsigned d = 0; d < kDimensions; ++d) {
    const int coordinate = rank % layout[d];
    rank /= layout[d];
    if ((mask >> d & 1u) != 0) {
      place.rank += coordinate * place.size;
      place.size *= layout[d];
    } else {
      place.color += coordinate * colors;
      colors *= layout[d];
    }
  }
  return place;
}

Status CompleteOne(const char* name, std::initializer_list<std::pair<const char*, int>> others,
                   int ranks, int* size) {
  int64_t product = 1;
  std::string text;
  for (const auto& [other, value] : others) {
    // Beyond the number of ranks a larger product says no more.
    product = product > ranks ? product : product * value;
    text += fmt::format("{} {}, ", other, value);
  }
  if (*size == 0 && ranks % product == 0) *size = static_cast<int>(ranks / product);
  if (*size != 0 && product <= ranks && product * *size == ranks) return OkStatus();
  return InvalidArgument(
      "{} ranks cannot be laid out as {}{} {}; expected sizes whose product is {}", ranks, text,
      name, *size == 0 ? "(what is left)" : std::to_string(*size), ranks);
}

}  // namespace

StatusOr<ParallelSizes> CompleteSizes(const ParallelSizes& sizes, int ranks) {
  if (ranks < 1) return InvalidArgument("the number of ranks is {}; expected 1 or more", ranks);
  const struct {
    const char* name;
    int value;
    int least;
  } all[] = {{"tensor", sizes.tensor, 1},          {"context", sizes.context, 1},
             {"pipeline", sizes.pipeline, 1},      {"data", sizes.data, 0},
             {"expert", sizes.expert, 1},          {"expert_tensor", sizes.expert_tensor, 0},
             {"expert_data", sizes.expert_data, 0}};
  for (const auto& [name, value, least] : all) {
    if (value < least) {
      return InvalidArgument("the size of {} is {}; expected {} or more{}", name, value, least,
                             least == 0 ? " (0: what follows from the others)" : "");
    }
  }
  ParallelSizes out = sizes;
  if (out.expert_tensor == 0) out.expert_tensor = out.tensor;
  TE_RETURN_IF_ERROR(CompleteOne(
      "data", {{"tensor", out.tensor}, {"context", out.context}, {"pipeline", out.pipeline}}, ranks,
      &out.data));
  TE_RETURN_IF_ERROR(CompleteOne(
      "expert_data",
      {{"expert_tensor", out.expert_tensor}, {"expert", out.expert}, {"pipeline", out.pipeline}},
      ranks, &out.expert_data));
  return out;
}

StatusOr<std::unique_ptr<ParallelState>> ParallelState::Create(Communicator* world,
                                                               const ParallelSizes& sizes) {
  std::unique_ptr<ParallelState> state(new ParallelState());
  TE_ASSIGN_OR_RETURN(state->sizes_, CompleteSizes(sizes, GroupSize(world)));
  const ParallelSizes& s = state->sizes_;
  const Layout dense = {s.tensor, s.context, 1, s.data, s.pipeline};
  const Layout experts = {s.expert_tensor, 1, s.expert, s.expert_data, s.pipeline};
  const auto in = [](auto... dimensions) { return ((1u << dimensions) | ...); };
  ProcessGroups& groups = state->groups_;
  const struct {
    const char* name;
    Communicator** group;
    const Layout* layout;
    unsigned mask;
  } all[] = {
      {"tensor", &groups.tensor, &dense, in(kTensor)},
      {"context", &groups.context, &dense, in(kContext)},
      {"data", &groups.data, &dense, in(kData)},
      {"pipeline", &groups.pipeline, &dense, in(kPipeline)},
      {"tensor_context", &groups.tensor_context, &dense, in(kTensor, kContext)},
      {"data_context", &groups.data_context, &dense, in(kData, kContext)},
      {"tensor_context_data", &groups.tensor_context_data, &dense, in(kTensor, kContext, kData)},
      {"tensor_pipeline", &groups.tensor_pipeline, &dense, in(kTensor, kPipeline)},
      {"expert", &groups.expert, &experts, in(kExpert)},
      {"expert_tensor", &groups.expert_tensor, &experts, in(kTensor)},
      {"expert_data", &groups.expert_data, &experts, in(kData)},
      {"tensor_expert", &groups.tensor_expert, &experts, in(kTensor, kExpert)},
      {"tensor_expert_pipeline", &groups.tensor_expert_pipeline, &experts,
       in(kTensor, kExpert, kPipeline)},
  };
  const auto split = [&](const char* name, int color, const Place& place,
                         Communicator** group) -> Status {
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> made, world->Split(color, place.rank, name));
    const bool member = color != Communicator::kNoGroup;
    if (GroupSize(made.get()) != (member ? place.size : 1) ||
        GroupRank(made.get()) != (member ? place.rank : 0)) {
      return FailedPrecondition(
          "group '{}' came out with rank {} of {}; expected {} of {}: the ranks were given sizes "
          "that differ",
          name, GroupRank(made.get()), GroupSize(made.get()), place.rank, place.size);
    }
    *group = made.get();
    if (made != nullptr) state->owned_.push_back(std::move(made));
    return OkStatus();
  };
  for (const auto& [name, group, layout, mask] : all) {
    const Place place = PlaceOf(GroupRank(world), *layout, mask);
    if (place.size > 1) TE_RETURN_IF_ERROR(split(name, place.color, place, group));
  }
  if (s.pipeline > 1) {
    const Place stage = PlaceOf(GroupRank(world), dense, in(kPipeline));
    const bool last = stage.rank == s.pipeline - 1;
    const int color = stage.rank == 0 || last ? stage.color : Communicator::kNoGroup;
    TE_RETURN_IF_ERROR(
        split("embedding", color, {.rank = last ? 1 : 0, .size = 2}, &groups.embedding));
  }
  return state;
}

}  // namespace te
