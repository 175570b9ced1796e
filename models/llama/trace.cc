#include "models/llama/trace.h"

#include <new>
#include <utility>

#include "fmt/format.h"

namespace te {
namespace {

// scale * x as float32 in host memory, under `shape`.
StatusOr<LlamaTraceTensor> ToHost(Context* context, std::string name, ConstTensorView x,
                                  const Shape& shape, float scale) {
  LlamaTraceTensor out;
  out.name = std::move(name);
  out.shape = shape;
  try {
    out.values.resize(static_cast<size_t>(shape.elements()));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: {} float32 values of host memory", out.name, shape.elements());
  }
  ArenaScope scope(context->scratch());
  TE_ASSIGN_OR_RETURN(const TensorView wide,
                      context->scratch()->Allocate(DType::kFloat32, x.shape()));
  TE_RETURN_IF_ERROR(context->kernels().cast(context->exec(), {.x = x, .y = wide, .scale = scale}));
  TE_RETURN_IF_ERROR(context->CopyToHost(wide, out.values.data()));
  return out;
}

}  // namespace

StatusOr<std::vector<LlamaTraceTensor>> TraceLlama(LlamaModel* model, const LlamaBatch& batch,
                                                   const LlamaTraceOptions& options) {
  Context* context = model->context();
  const LlamaConfig& config = model->config();
  if (options.gradients && batch.labels.empty()) {
    return InvalidArgument(
        "gradients are asked for, but there are no labels; expected labels of input_ids' shape");
  }
  const WorkOnce once(context);
  TE_ASSIGN_OR_RETURN(StepScalars scalars, context->ReadScalars());
  scalars.loss_sum = 0;
  scalars.token_count = 0;
  TE_RETURN_IF_ERROR(context->WriteScalars(scalars));
  if (options.gradients) TE_RETURN_IF_ERROR(model->EnsureGradients());
  TE_ASSIGN_OR_RETURN(LlamaModel::Pass pass, model->Forward(batch));

  std::vector<LlamaTraceTensor> out;
  {
    const int64_t rows = batch.batch * batch.sequence;
    TE_ASSIGN_OR_RETURN(const Tensor logits,
                        context->NewTensor(DType::kFloat32, {rows, config.vocab_size}));
    TE_RETURN_IF_ERROR(model->Logits(pass, logits.view()));
    TE_ASSIGN_OR_RETURN(
        LlamaTraceTensor tensor,
        ToHost(context, "logits", logits, {batch.batch, batch.sequence, config.vocab_size}, 1));
    out.push_back(std::move(tensor));
  }
  if (options.hidden_states) {
    for (int64_t i = 0; i <= config.num_hidden_layers; ++i) {
      const ConstTensorView x = model->HiddenState(pass, i);
      TE_ASSIGN_OR_RETURN(LlamaTraceTensor tensor,
                          ToHost(context, fmt::format("hidden.{}", i), x, x.shape(), 1));
      out.push_back(std::move(tensor));
    }
  }
  if (batch.labels.empty()) return out;
  TE_RETURN_IF_ERROR(options.gradients ? model->Backward(&pass, {}) : model->EvaluateLoss(&pass));
  TE_ASSIGN_OR_RETURN(scalars, context->ReadScalars());
  if (scalars.token_count == 0) {
    return InvalidArgument("no label counts: after the shift by one, all are {}", kIgnoreIndex);
  }
  const double count = static_cast<double>(scalars.token_count);
  out.push_back({"loss", {1}, {static_cast<float>(scalars.loss_sum / count)}});
  if (!options.gradients) return out;
  const float scale = static_cast<float>(1.0 / count);
  for (const LlamaTensor& tensor : model->tensors()) {
    if (!tensor.grad().defined()) continue;  // frozen
    TE_ASSIGN_OR_RETURN(LlamaTraceTensor grad, ToHost(context, "grad." + tensor.name.hf_name,
                                                      tensor.grad(), tensor.name.shape, scale));
    out.push_back(std::move(grad));
  }
  return out;
}

}  // namespace te
