#include "te_core/layers/linear_cross_entropy.h"

#include <algorithm>

#include "te_core/layers/layer_support.h"

namespace te {

struct LinearCrossEntropy::State : SavedState {
  ConstTensorView x;
  ConstTensorView labels;
  GemmPass pass;
};

namespace {

constexpr const char* kModuleType = "lm_head";

// Tokens of one chunk: at most `most`, as even as whole GEMM tiles allow.
int64_t ChunkOf(int64_t tokens, int64_t most) {
  constexpr int64_t kTile = 128;
  most = std::clamp<int64_t>(most, 1, std::max<int64_t>(tokens, 1));
  const int64_t chunks = (tokens + most - 1) / most;
  if (chunks <= 1) return most;
  const int64_t even = (tokens + chunks - 1) / chunks;
  return std::min(most, (even + kTile - 1) / kTile * kTile);
}

Shape TokenShape(const Shape& hidden) {
  return Shape(hidden.dims().first(static_cast<size_t>(hidden.rank() - 1)));
}

}  // namespace

StatusOr<std::unique_ptr<LinearCrossEntropy>> LinearCrossEntropy::Create(
    Context* context, const LinearCrossEntropyOptions& options, std::string name,
    Parameter* shared_weight) {
  std::unique_ptr<LinearCrossEntropy> layer(new LinearCrossEntropy(context, std::move(name)));
  layer->options_ = options;
  const std::string& n = layer->name();
  layer->quantizers_.Init(context, kModuleType, n);
  TE_RETURN_IF_ERROR(CheckParamsDType(n, options.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(n, "hidden_size", options.hidden_size));
  TE_RETURN_IF_ERROR(CheckPositive(n, "vocab_size", options.vocab_size));
  TE_RETURN_IF_ERROR(CheckProbability(n, "label_smoothing", options.label_smoothing));
  TE_RETURN_IF_ERROR(CheckStd(n, "init_method_std", options.init_method_std));
  const Shape shape = {options.vocab_size, options.hidden_size};
  if (shared_weight != nullptr) {
    TE_RETURN_IF_ERROR(
        CheckShape(n, "shared weight", shared_weight->value, options.params_dtype, shape));
    layer->weight_ = shared_weight;
    return layer;
  }
  TE_ASSIGN_OR_RETURN(layer->own_weight_,
                      NewParameter(context, "weight", options.params_dtype, shape));
  layer->weight_ = &layer->own_weight_;
  if (options.perform_initialization)
    TE_RETURN_IF_ERROR(FillNormal(context, options.init_method_std, layer->weight_));
  return layer;
}

Status LinearCrossEntropy::Run(const LinearCrossEntropyArgs& args) {
  const DType dtype = options_.params_dtype;
  const int64_t vocab = options_.vocab_size;
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input, dtype, options_.hidden_size));
  const Shape token_shape = TokenShape(args.input.shape());
  TE_RETURN_IF_ERROR(CheckShape(name_, "labels", args.labels, DType::kInt32, token_shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "loss", args.loss, DType::kFloat32, token_shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput, dtype, args.input.shape()));
  const ConstTensorView x = Rows(args.input);
  const int64_t tokens = x.dim(0);
  const ConstTensorView labels = args.labels.Reshape({tokens});
  const bool wgrad = args.weight_gradient && weight_->requires_grad;
  const bool gradients = wgrad || args.dinput.defined();
  const TensorView dx = args.dinput.defined() ? Rows(args.dinput) : TensorView();

  ArenaScope scope(context_->scratch());
  const size_t row_bytes = static_cast<size_t>(vocab) * SizeOf(dtype);
  const int64_t chunk =
      ChunkOf(tokens, static_cast<int64_t>(options_.max_logits_bytes / row_bytes));
  TE_ASSIGN_OR_RETURN(const TensorView logits_buffer,
                      context_->scratch()->Allocate(dtype, {chunk, vocab}));
  TensorView loss = args.loss.defined() ? args.loss.Reshape({tokens}) : TensorView();
  if (!loss.defined()) {
    TE_ASSIGN_OR_RETURN(loss, context_->scratch()->Allocate(DType::kFloat32, {tokens}));
  }
  bool accumulate = false;
  if (wgrad) {
    TE_ASSIGN_OR_RETURN(accumulate, PrepareGradient(context_, weight_, args.accumulate_gradients));
    if (tokens == 0 && !accumulate) TE_RETURN_IF_ERROR(context_->Zero(weight_->grad.view()));
  }
  const GemmPass pass = args.pass != nullptr ? *args.pass : quantizers_.NewPass(gradients);
  TE_RETURN_IF_ERROR(quantizers_.CalibrateWeight(pass, *weight_));
  TE_ASSIGN_OR_RETURN(const Operand w, quantizers_.Weight(pass, GemmKind::kFprop, weight_));
  Operand w_of_backward = w;
  if (args.dinput.defined()) {
    TE_ASSIGN_OR_RETURN(w_of_backward, quantizers_.Weight(pass, GemmKind::kDgrad, weight_));
  }
  const KernelTable& kernels = context_->kernels();
  const Exec& exec = context_->exec();
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t end = std::min(begin + chunk, tokens);
    const ConstTensorView x_chunk = x.Slice(0, begin, end);
    const TensorView logits = logits_buffer.Slice(0, 0, end - begin);
    ArenaScope chunk_scope(context_->scratch());
    TE_RETURN_IF_ERROR(quantizers_.CalibrateInput(pass, x_chunk));
    TE_ASSIGN_OR_RETURN(const Sink x_sink,
                        quantizers_.Input(pass, context_->scratch(), x_chunk, wgrad));
    TE_RETURN_IF_ERROR(kernels.gemm(exec, {.kind = GemmKind::kFprop,
                                           .a = OperandOf(x_sink),
                                           .b = w,
                                           .d = logits,
                                           .split_accumulator = pass.Splits(GemmKind::kFprop)}));
    TE_RETURN_IF_ERROR(kernels.cross_entropy(exec, {.logits = logits,
                                                    .labels = labels.Slice(0, begin, end),
                                                    .ignore_index = options_.ignore_index,
                                                    .label_smoothing = options_.label_smoothing,
                                                    .loss = loss.Slice(0, begin, end),
                                                    .dlogits = gradients ? logits : TensorView()}));
    if (!gradients) continue;
    TE_RETURN_IF_ERROR(quantizers_.CalibrateGradOutput(pass, logits));
    TE_ASSIGN_OR_RETURN(const Sink dy, quantizers_.GradOutput(pass, context_->scratch(), logits,
                                                              QuantSpec(), wgrad));
    // The weight's gradient first: dinput may be the input's own memory.
    if (wgrad) {
      TE_ASSIGN_OR_RETURN(
          const Operand x_of_backward,
          quantizers_.InputOfBackward(pass, x_sink, dtype, end - begin, options_.hidden_size));
      TE_RETURN_IF_ERROR(kernels.gemm(exec, {.kind = GemmKind::kWgrad,
                                             .a = OperandOf(dy),
                                             .b = x_of_backward,
                                             .d = weight_->grad.view(),
                                             .beta = accumulate ? 1.0f : 0.0f,
                                             .split_accumulator = pass.Splits(GemmKind::kWgrad)}));
      accumulate = true;
    }
    if (dx.defined()) {
      TE_RETURN_IF_ERROR(kernels.gemm(exec, {.kind = GemmKind::kDgrad,
                                             .a = OperandOf(dy),
                                             .b = w_of_backward,
                                             .d = dx.Slice(0, begin, end),
                                             .split_accumulator = pass.Splits(GemmKind::kDgrad)}));
    }
  }
  if (args.scalars != nullptr) {
    TE_RETURN_IF_ERROR(kernels.sum(
        exec, {.x = loss, .squared = false, .accumulate = true, .out = &args.scalars->loss_sum}));
    TE_RETURN_IF_ERROR(kernels.count_labels(exec, {.labels = labels,
                                                   .ignore_index = options_.ignore_index,
                                                   .count = &args.scalars->token_count}));
  }
  if (wgrad && weight_ == &own_weight_)
    TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, weight_));
  return gradients ? quantizers_.EndBackward(pass) : OkStatus();
}

Status LinearCrossEntropy::Logits(ConstTensorView input, TensorView logits) {
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", input, dtype, options_.hidden_size));
  TE_RETURN_IF_ERROR(
      CheckShape(name_, "logits", logits, dtype, WithLast(input.shape(), options_.vocab_size)));
  ArenaScope scope(context_->scratch());
  const GemmPass pass = quantizers_.NewPass(false);
  TE_ASSIGN_OR_RETURN(const Sink x,
                      quantizers_.Input(pass, context_->scratch(), Rows(input), false));
  TE_ASSIGN_OR_RETURN(const Operand w, quantizers_.Weight(pass, GemmKind::kFprop, weight_));
  return context_->kernels().gemm(context_->exec(),
                                  {.kind = GemmKind::kFprop,
                                   .a = OperandOf(x),
                                   .b = w,
                                   .d = Rows(logits),
                                   .split_accumulator = pass.Splits(GemmKind::kFprop)});
}

Status LinearCrossEntropy::Forward(const ForwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.labels = true}, args));
  if (!args.output.defined())
    return InvalidArgument("{}: output (loss) is missing; expected float32, one a token", name_);
  TE_RETURN_IF_ERROR(Run({.input = args.input.dense, .labels = args.labels, .loss = args.output}));
  if (saved == nullptr) return OkStatus();
  State& state = saved->state<State>();
  state.x = args.input.dense;
  state.labels = args.labels;
  state.pass = quantizers_.NewPass(true);
  return OkStatus();
}

Status LinearCrossEntropy::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (args.doutput.dense.defined()) {
    return InvalidArgument(
        "{}: doutput is given; gradients are those of the sum of the losses, expected none", name_);
  }
  const State& state = saved->state<State>();
  return Run({.input = state.x,
              .labels = state.labels,
              .dinput = args.dinput.dense,
              .pass = &state.pass,
              .weight_gradient = true,
              .accumulate_gradients = args.accumulate_gradients,
              .gradient_ready = args.gradient_ready});
}

Status LinearCrossEntropy::BackwardWeight(const BackwardArgs&, Saved* saved) {
  return CheckSaved(name_, saved);
}

void LinearCrossEntropy::VisitOwnParameters(const std::string& prefix,
                                            const ParameterVisitor& visit) {
  if (weight_ == &own_weight_) visit(JoinName(prefix, own_weight_.name), own_weight_);
}

std::string LinearCrossEntropy::Describe(int) const {
  return fmt::format("LinearCrossEntropy(hidden_size={}, vocab_size={}, {}, {} parameters)",
                     options_.hidden_size, options_.vocab_size,
                     weight_ == &own_weight_ ? DescribeParameter(own_weight_) : "shared weight",
                     ParameterCount(own_weight_));
}

}  // namespace te
