// te_context_*.
#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/options.h"

namespace te::c_api {
namespace {

// The sizes that ABI version 1 had: never changed, whatever is added later.
constexpr size_t kContextOptionsV1 =
    offsetof(te_context_options, expert_group) + sizeof(te_process_group*);

te_context_options DefaultContextOptions() {
  te_context_options options{};
  options.struct_size = sizeof(options);
  options.device = "cpu";
  return options;
}

Status ReadContextOptions(const te_context_options* in, ContextOptions* out) {
  te_context_options options = DefaultContextOptions();
  TE_RETURN_IF_ERROR(ReadOptions(in, "options", kContextOptionsV1, &options));
  TE_RETURN_IF_ERROR(CheckNotNull(options.device, "options->device"));
  TE_RETURN_IF_ERROR(CheckReserved(options.reserved, "options->reserved"));
  TE_RETURN_IF_ERROR(CheckReserved(options.reserved2, "options->reserved2"));
  TE_RETURN_IF_ERROR(CheckBool(options.allow_nondeterministic, "options->allow_nondeterministic"));
  const struct {
    const char* name;
    const te_process_group* group;
  } groups[] = {{"data_group", options.data_group},
                {"tensor_group", options.tensor_group},
                {"context_group", options.context_group},
                {"pipeline_group", options.pipeline_group},
                {"expert_group", options.expert_group}};
  for (const auto& [name, group] : groups) {
    if (group != nullptr) {
      return Unsupported(
          "options->{}: process groups are not built yet; expected NULL (a group of one)", name);
    }
  }
  out->device = options.device;
  out->num_threads = options.num_threads;
  out->seed = options.seed;
  out->stream = options.stream;
  out->allow_nondeterministic = options.allow_nondeterministic == 1;
  if (out->device == "cpu" && out->stream != nullptr) {
    return InvalidArgument("options->stream is {}; expected NULL: the cpu device has no streams",
                           options.stream);
  }
  return OkStatus();
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

// In parentheses, because te.h has a macro of this name.
te_status(te_context_options_init)(te_context_options* options) {
  return te_context_options_init_sized(options, kContextOptionsV1);
}

te_status te_context_options_init_sized(te_context_options* options, size_t struct_size) {
  return Guard([&] {
    return InitSizedOptions(options, "options", struct_size, kContextOptionsV1,
                            DefaultContextOptions());
  });
}

te_status te_context_create(const te_context_options* options, te_context** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    ContextOptions core_options;
    TE_RETURN_IF_ERROR(ReadContextOptions(options, &core_options));
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Context> core, Context::Create(core_options));
    *out = new te_context(std::move(core));
    return OkStatus();
  });
}

void te_context_destroy(te_context* context) {
  if (Check(context, "context").ok()) delete context;
}

te_status te_context_synchronize(te_context* context) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    return context->core->Synchronize();
  });
}

te_status te_context_memory(te_context* context, uint64_t* bytes, uint64_t* peak_bytes,
                            int64_t* allocations) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    const Context::MemoryStatistics statistics = context->core->memory_statistics();
    if (bytes != nullptr) *bytes = statistics.bytes;
    if (peak_bytes != nullptr) *peak_bytes = statistics.peak_bytes;
    if (allocations != nullptr) *allocations = statistics.allocations;
    return OkStatus();
  });
}
