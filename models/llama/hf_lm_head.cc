#include "models/llama/hf_lm_head.h"

namespace te {

Status RunLlamaHfHead(Context* context, Parameter* weight, const LinearCrossEntropyArgs& args) {
  const KernelTable& run = context->kernels();
  const Exec& exec = context->exec();
  const TensorView w = weight->value.view();
  const int64_t tokens = args.labels.elements(), hidden = w.dim(1), vocab = w.dim(0);
  const ConstTensorView x = args.input.Reshape({tokens, hidden});
  const bool gradients = args.dinput.defined() || args.weight_gradient;
  ArenaScope scope(context->scratch());
  Arena* scratch = context->scratch();
  TE_ASSIGN_OR_RETURN(const TensorView logits, scratch->Allocate(w.dtype(), {tokens, vocab}));
  TE_RETURN_IF_ERROR(run.gemm(exec, {.kind = GemmKind::kFprop, .a = x, .b = w, .d = logits}));
  TensorView wide = logits;
  if (w.dtype() != DType::kFloat32) {
    TE_ASSIGN_OR_RETURN(wide, scratch->Allocate(DType::kFloat32, {tokens, vocab}));
    TE_RETURN_IF_ERROR(run.cast(exec, {.x = logits, .y = wide}));
  }
  TensorView loss = args.loss;
  if (loss.defined()) {
    loss = loss.Reshape({tokens});
  } else {
    TE_ASSIGN_OR_RETURN(loss, scratch->Allocate(DType::kFloat32, {tokens}));
  }
  TE_RETURN_IF_ERROR(run.cross_entropy(exec, {.logits = wide,
                                              .labels = args.labels.Reshape({tokens}),
                                              .loss = loss,
                                              .dlogits = gradients ? wide : TensorView()}));
  if (args.scalars != nullptr) {
    TE_RETURN_IF_ERROR(run.sum(
        exec, {.x = loss, .squared = false, .accumulate = true, .out = &args.scalars->loss_sum}));
    TE_RETURN_IF_ERROR(run.count_labels(exec, {.labels = args.labels.Reshape({tokens}),
                                               .ignore_index = kIgnoreIndex,
                                               .count = &args.scalars->token_count}));
  }
  if (!gradients) return OkStatus();
  // Autograd casts the gradient back to the logits' dtype.
  if (wide.data() != logits.data()) {
    TE_RETURN_IF_ERROR(run.cast(exec, {.x = wide, .y = logits}));
  }
  if (args.weight_gradient && weight->requires_grad) {
    TE_RETURN_IF_ERROR(run.gemm(exec, {.kind = GemmKind::kWgrad,
                                       .a = logits,
                                       .b = x,
                                       .d = weight->grad.view(),
                                       .beta = args.accumulate_gradients ? 1.0f : 0.0f}));
  }
  if (!args.dinput.defined()) return OkStatus();
  return run.gemm(
      exec,
      {.kind = GemmKind::kDgrad, .a = logits, .b = w, .d = args.dinput.Reshape({tokens, hidden})});
}

}  // namespace te
