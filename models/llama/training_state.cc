#include "models/llama/training_state.h"

#include <utility>

#include "models/quantization/fp8_options.h"

namespace te {

ParameterNames ParameterNamesOf(const LlamaModel& model) {
  ParameterNames names;
  for (size_t i = 0; i < model.parameters().size(); ++i)
    names[model.parameters()[i]] = model.parameter_names()[i];
  return names;
}

StatusOr<int64_t> AddFp8State(const LlamaModel& model, const Recipe& recipe, int64_t step,
                              SavePretrainedOptions* options) {
  const int64_t num_layers = model.config().num_hidden_layers;
  std::vector<std::string> modules = QuantizedModules(num_layers);
  for (std::string& module : AttentionModules(num_layers)) modules.push_back(std::move(module));
  TE_ASSIGN_OR_RETURN(Fp8State state,
                      ExportFp8State(model.context(), modules, std::string(recipe.name()), step));
  const auto tensors = static_cast<int64_t>(state.slots.size());
  if (tensors == 0) return tensors;
  options->extra_writers.emplace_back(
      kFp8StateFile,
      [state = std::move(state)](const std::string& path) { return WriteFp8State(path, state); });
  return tensors;
}

Status AddOptimizerState(const PretrainedLlama& llama, AdamWOptimizer* optimizer,
                         const OptimizerStateInfo& info, SavePretrainedOptions* options) {
  TE_ASSIGN_OR_RETURN(std::set<const Parameter*> rounded,
                      ParametersRoundedBySaving(llama, *options));
  ParameterNames names = ParameterNamesOf(*llama.model);
  for (const AdamWOptimizer::State& state : optimizer->states()) {
    const auto check = [&](const char* suffix, const Tensor& value) {
      if (value.defined())
        options->extra_values.emplace_back(names[state.parameter] + suffix, value.view());
    };
    check(".exp_avg", state.m);
    check(".exp_avg_sq", state.v);
    check(".master", state.master);
  }
  options->extra_writers.emplace_back(
      kOptimizerStateFile, [names = std::move(names), info, rounded = std::move(rounded),
                            optimizer](const std::string& path) {
        return WriteOptimizerState(
            path, optimizer, names, info,
            [&rounded](const Parameter& parameter) { return rounded.contains(&parameter); });
      });
  return OkStatus();
}

Status CheckWrittenTogether(const OptimizerStateFile& optimizer, const std::string& path,
                            const Fp8State* state, int64_t tensors) {
  const OptimizerStateInfo& info = optimizer.info();
  if (state == nullptr) {
    if (info.fp8_tensors == 0) return OkStatus();
    return InvalidArgument(
        "{}: no such file; expected the FP8 state of {} tensors that {} was "
        "written with",
        path, info.fp8_tensors, optimizer.path());
  }
  if (tensors != info.fp8_tensors) {
    return InvalidArgument("{}: {} tensors have a scale; expected {}, which {} was written with",
                           path, tensors, info.fp8_tensors, optimizer.path());
  }
  if (state->step && *state->step != info.step) {
    return InvalidArgument("{}: of step {}; expected step {}, that of {}", path, *state->step,
                           info.step, optimizer.path());
  }
  return OkStatus();
}

}  // namespace te
