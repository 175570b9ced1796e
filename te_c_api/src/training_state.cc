// te_fp8_state_*, te_optimizer_state_*: what training goes on from.
#include <map>
#include <string>

#include "models/checkpoint/output_file.h"
#include "models/quantization/fp8_state_file.h"
#include "models/train/optimizer_state_file.h"
#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"

namespace te::c_api {
namespace {

// The layer's parameters under their full names within it.
ParameterNames NamesOf(Layer* layer) {
  ParameterNames names;
  layer->VisitParameters(
      "", [&names](const std::string& name, Parameter& parameter) { names[&parameter] = name; });
  return names;
}

Status CheckNoScope(const te_context* context) {
  if (context->scopes->empty()) return OkStatus();
  return FailedPrecondition(
      "the context is in {} quantization scopes; expected none: end them first",
      context->scopes->size());
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

te_status te_fp8_state_save(te_context* context, const char* path) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(path, "path"));
    TE_RETURN_IF_ERROR(CheckNoScope(context));
    Context* core = context->core.get();
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, core->ReadScalars());
    Fp8State state;
    state.recipe = "delayed scaling";
    state.step = scalars.step;
    TE_ASSIGN_OR_RETURN(state.slots, core->delayed_scaling().Export(core->exec()));
    if (state.slots.empty()) {
      return FailedPrecondition(
          "no module of the context has run under delayed scaling: there is no state to save");
    }
    return ReplaceFile(path, [&state](const std::string& p) { return WriteFp8State(p, state); });
  });
}

te_status te_fp8_state_load(te_context* context, const char* path) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(path, "path"));
    TE_RETURN_IF_ERROR(CheckNoScope(context));
    Context* core = context->core.get();
    TE_ASSIGN_OR_RETURN(Fp8State state, ReadFp8State(path));
    for (const DelayedScalingState::Saved& slot : state.slots) {
      if (!core->delayed_scaling().HasModuleOf(slot.name)) {
        return InvalidArgument(
            "{}: {} is no quantized tensor of the context's layers; expected the state of layers "
            "that have been made, under the same names",
            path, slot.name);
      }
    }
    return core->delayed_scaling().Import(core->exec(), std::move(state.slots)).WithContext(path);
  });
}

te_status te_optimizer_state_save(te_optimizer* optimizer, const char* path) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(optimizer, "optimizer"));
    TE_RETURN_IF_ERROR(CheckNotNull(path, "path"));
    AdamWOptimizer* core = optimizer->core.get();
    TE_ASSIGN_OR_RETURN(const AdamWOptimizer::Progress progress, core->ReadProgress());
    const ParameterNames names = NamesOf(optimizer->box->layer.get());
    return ReplaceFile(path, [&](const std::string& p) {
      return WriteOptimizerState(p, core, names, {.position = progress.step}, {});
    });
  });
}

te_status te_optimizer_state_load(te_optimizer* optimizer, const char* path) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(optimizer, "optimizer"));
    TE_RETURN_IF_ERROR(CheckNotNull(path, "path"));
    TE_ASSIGN_OR_RETURN(const std::unique_ptr<OptimizerStateFile> file,
                        OptimizerStateFile::Open(path));
    return file->Load(optimizer->core.get(), NamesOf(optimizer->box->layer.get()));
  });
}
