#include "models/cli/trace.h"

#include <utility>
#include <vector>

#include "models/checkpoint/output_file.h"
#include "models/checkpoint/safetensors.h"
#include "models/cli/console.h"
#include "models/cli/low_precision.h"
#include "models/cli/output_check.h"
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
  TE_RETURN_IF_ERROR(CheckTraceOutput(flags));
  // Before minutes of loading: a pipe, for one, cannot be read by position.
  StatusOr<InputFile> file = InputFile::Open(flags.input);
  if (!file.ok()) return file.status();
  LowPrecision fp8;  // outlives the context
  TE_ASSIGN_OR_RETURN(
      OpenedModel opened,
      OpenModelWithPrecision(flags.model, options, plan, LowPrecisionUse::kEvaluation, &fp8));
  TE_ASSIGN_OR_RETURN(const TokenTensors input,
                      ReadTokenTensors(std::move(*file), opened.llama.model->config().vocab_size));
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
  TE_RETURN_IF_ERROR(ReplaceFile(flags.output, [&items](const std::string& path) {
                       return WriteSafetensors(path, items, {{"format", "pt"}}, /*replace=*/false);
                     }).WithContext("--output"));
  for (const LlamaTraceTensor& tensor : *traced) {
    if (tensor.name == "loss") Print("loss {:.6f}\n", tensor.values.at(0));
  }
  Print("{}: {} tensors\n", flags.output, traced->size());
  return OkStatus();
}

}  // namespace te
