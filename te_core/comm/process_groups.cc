#include "te_core/comm/process_groups.h"

#include <string>

namespace te {
namespace {

struct Dimension {
  const char* name;
  Communicator* group;
};

// Of at most three dimensions.
Status Complete(const char* name, std::initializer_list<Dimension> dimensions,
                Communicator** group) {
  int64_t product = 1;
  int larger = 0;
  Communicator* only = nullptr;
  std::string sizes;
  for (const Dimension& dimension : dimensions) {
    const int size = GroupSize(dimension.group);
    product *= size;
    sizes += fmt::format("{}{} {}", sizes.empty() ? "" : ", ", dimension.name, size);
    if (size == 1) continue;
    ++larger;
    only = dimension.group;
  }
  if (*group == nullptr && larger <= 1) *group = only;
  if (GroupSize(*group) == product) return OkStatus();
  return InvalidArgument(
      "groups.{} has size {} while the sizes of its dimensions are {}; expected a group of {} "
      "(ParallelState makes it)",
      name, GroupSize(*group), sizes, product);
}

}  // namespace

StatusOr<ProcessGroups> CompleteGroups(const ProcessGroups& groups) {
  ProcessGroups out = groups;
  const Dimension data = {"data", out.data}, tensor = {"tensor", out.tensor},
                  context = {"context", out.context}, pipeline = {"pipeline", out.pipeline},
                  expert = {"expert", out.expert},
                  expert_tensor = {"expert_tensor", out.expert_tensor};
  TE_RETURN_IF_ERROR(Complete("tensor_context", {tensor, context}, &out.tensor_context));
  TE_RETURN_IF_ERROR(Complete("data_context", {data, context}, &out.data_context));
  TE_RETURN_IF_ERROR(
      Complete("tensor_context_data", {tensor, context, data}, &out.tensor_context_data));
  TE_RETURN_IF_ERROR(Complete("tensor_pipeline", {tensor, pipeline}, &out.tensor_pipeline));
  TE_RETURN_IF_ERROR(Complete("tensor_expert", {expert_tensor, expert}, &out.tensor_expert));
  TE_RETURN_IF_ERROR(Complete("tensor_expert_pipeline", {expert_tensor, expert, pipeline},
                              &out.tensor_expert_pipeline));
  return out;
}

}  // namespace te
