#include "te_core/layers/cross_entropy.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct CrossEntropy::State : SavedState {
  ConstTensorView logits;
  ConstTensorView labels;
};

namespace {

// The shape of labels and losses: logits' without the vocabulary.
Shape TokenShape(const Shape& logits) {
  return Shape(logits.dims().first(static_cast<size_t>(logits.rank() - 1)));
}

}  // namespace

StatusOr<std::unique_ptr<CrossEntropy>> CrossEntropy::Create(Context* context,
                                                             const CrossEntropyOptions& options,
                                                             std::string name) {
  std::unique_ptr<CrossEntropy> layer(new CrossEntropy(context, std::move(name)));
  layer->options_ = options;
  TE_RETURN_IF_ERROR(CheckProbability(layer->name(), "label_smoothing", options.label_smoothing));
  return layer;
}

Status CrossEntropy::Forward(const ForwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.labels = true}, args));
  const DType dtype = args.input.dense.dtype();
  if ((dtype != DType::kFloat32 && dtype != DType::kBFloat16) || args.input.dense.rank() < 2) {
    return InvalidArgument(
        "{}: input (logits) is {}; expected float32 or bfloat16 [..., vocab_size]", name_,
        args.input.dense.ToString());
  }
  TE_RETURN_IF_ERROR(
      CheckShape(name_, "input (logits)", args.input.dense, dtype, args.input.dense.shape()));
  const Shape tokens = TokenShape(args.input.dense.shape());
  TE_RETURN_IF_ERROR(CheckShape(name_, "labels", args.labels, DType::kInt32, tokens));
  TE_RETURN_IF_ERROR(CheckShape(name_, "output (loss)", args.output, DType::kFloat32, tokens));
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.logits = args.input.dense;
    state.labels = args.labels;
  }
  return context_->kernels().cross_entropy(context_->exec(),
                                           {.logits = Rows(args.input.dense),
                                            .labels = args.labels.Reshape({tokens.elements()}),
                                            .ignore_index = options_.ignore_index,
                                            .label_smoothing = options_.label_smoothing,
                                            .loss = args.output.Reshape({tokens.elements()})});
}

Status CrossEntropy::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (args.doutput.dense.defined()) {
    return InvalidArgument(
        "{}: doutput is given; dinput is the gradient of the sum of the losses, expected none",
        name_);
  }
  if (!args.dinput.dense.defined()) return OkStatus();
  const State& state = saved->state<State>();
  TE_RETURN_IF_ERROR(
      CheckShape(name_, "dinput", args.dinput.dense, state.logits.dtype(), state.logits.shape()));
  ArenaScope scope(context_->scratch());
  const int64_t tokens = state.labels.elements();
  TE_ASSIGN_OR_RETURN(const TensorView loss,
                      context_->scratch()->Allocate(DType::kFloat32, {tokens}));
  return context_->kernels().cross_entropy(context_->exec(),
                                           {.logits = Rows(state.logits),
                                            .labels = state.labels.Reshape({tokens}),
                                            .ignore_index = options_.ignore_index,
                                            .label_smoothing = options_.label_smoothing,
                                            .loss = loss,
                                            .dlogits = Rows(args.dinput.dense)});
}

Status CrossEntropy::BackwardWeight(const BackwardArgs&, Saved* saved) {
  return CheckSaved(name_, saved);
}

std::string CrossEntropy::Describe(int) const {
  return fmt::format("CrossEntropy(label_smoothing={}, ignore_index={})", options_.label_smoothing,
                     options_.ignore_index);
}

}  // namespace te
