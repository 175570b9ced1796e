#include "models/cli/trace.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "models/checkpoint/safetensors.h"
#include "models/cli/low_precision.h"
#include "models/data/token_tensors.h"
#include "models/llama/trace.h"

namespace te {

Status Trace(const TraceFlags& flags) {
  LlamaModelOptions options;
  TE_ASSIGN_OR_RETURN(const std::optional<Fp8Plan> plan,
                      ParseComputeFlags(flags.precision, flags.path, flags.fp8, &options));
  if (plan && flags.gradients) {
    return InvalidArgument(
        "--gradients with --precision fp8; expected fp32 or bf16: te trace evaluates, and "
        "evaluation quantizes for the forward pass alone");
  }
  std::error_code missing;
  if (std::filesystem::equivalent(flags.input, flags.output, missing)) {
    return InvalidArgument("--output: {} is the file of --input; choose another name",
                           flags.output);
  }
  LowPrecision fp8;  // outlives the context
  TE_ASSIGN_OR_RETURN(
      OpenedModel opened,
      OpenModelWithPrecision(flags.model, options, plan, LowPrecisionUse::kEvaluation, &fp8));
  TE_ASSIGN_OR_RETURN(const TokenTensors input,
                      ReadTokenTensors(flags.input, opened.llama.model->config().vocab_size));
  const LlamaBatch batch = {.batch = input.rows,
                            .sequence = input.columns,
                            .input_ids = input.input_ids,
                            .labels = input.labels,
                            .attention_mask = input.attention_mask};
  const EvaluationScope scope(opened.context.get(), fp8.recipe.get());
  StatusOr<std::vector<LlamaTraceTensor>> traced =
      TraceLlama(opened.llama.model.get(), batch,
                 {.gradients = flags.gradients, .hidden_states = flags.hidden_states});
  if (!traced.ok()) return traced.status().WithContext(flags.input);

  std::vector<SafetensorsItem> items;
  for (const LlamaTraceTensor& tensor : *traced) {
    TE_ASSIGN_OR_RETURN(SafetensorsItem item,
                        HostItem(tensor.name, ConstTensorView(tensor.values.data(), DType::kFloat32,
                                                              tensor.shape)));
    items.push_back(std::move(item));
  }
  TE_RETURN_IF_ERROR(WriteSafetensors(flags.output, items, {{"format", "pt"}}, /*replace=*/true));
  for (const LlamaTraceTensor& tensor : *traced) {
    if (tensor.name == "loss") fmt::print("loss {:.6f}\n", tensor.values.at(0));
  }
  fmt::print("{}: {} tensors\n", flags.output, traced->size());
  return OkStatus();
}

}  // namespace te
