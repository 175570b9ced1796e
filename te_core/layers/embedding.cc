#include "te_core/layers/embedding.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct Embedding::State : SavedState {
  ConstTensorView ids;
};

namespace {

ConstTensorView Flat(const ConstTensorView& view) { return view.Reshape({view.elements()}); }

Shape WithFeatures(const Shape& ids, int64_t features) {
  if (ids.rank() == 1) return {ids[0], features};
  return {ids[0], ids[1], features};
}

}  // namespace

StatusOr<std::unique_ptr<Embedding>> Embedding::Create(Context* context,
                                                       const EmbeddingOptions& options,
                                                       std::string name) {
  std::unique_ptr<Embedding> layer(new Embedding(context, std::move(name)));
  layer->options_ = options;
  const std::string& n = layer->name();
  TE_RETURN_IF_ERROR(CheckParamsDType(n, options.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(n, "vocab_size", options.vocab_size));
  TE_RETURN_IF_ERROR(CheckPositive(n, "hidden_size", options.hidden_size));
  TE_RETURN_IF_ERROR(CheckStd(n, "init_method_std", options.init_method_std));
  if (options.padding_idx < -1 || options.padding_idx >= options.vocab_size) {
    return InvalidArgument("{}: padding_idx is {}; expected -1 (none) or a row from 0 to {}", n,
                           options.padding_idx, options.vocab_size - 1);
  }
  TE_ASSIGN_OR_RETURN(layer->weight_, NewParameter(context, "weight", options.params_dtype,
                                                   {options.vocab_size, options.hidden_size}));
  if (options.perform_initialization) {
    TE_RETURN_IF_ERROR(FillNormal(context, options.init_method_std, &layer->weight_));
    TE_RETURN_IF_ERROR(layer->ZeroPaddingRow());
  }
  return layer;
}

Status Embedding::ZeroPaddingRow() {
  const int64_t row = options_.padding_idx;
  if (row < 0) return OkStatus();
  // low == high: every element is low.
  return context_->kernels().random_fill(context_->exec(),
                                         {.distribution = RandomDistribution::kUniform,
                                          .a = 0,
                                          .b = 0,
                                          .out = weight_.MutableValue().Slice(0, row, row + 1)});
}

Status Embedding::Forward(const ForwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  if (args.input.dense.rank() != 1 && args.input.dense.rank() != 2) {
    return InvalidArgument(
        "{}: input (token ids) is {}; expected int32 [tokens] or [batch, sequence]", name_,
        args.input.dense.ToString());
  }
  TE_RETURN_IF_ERROR(CheckShape(name_, "input (token ids)", args.input.dense, DType::kInt32,
                                args.input.dense.shape()));
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, options_.params_dtype,
                                WithFeatures(args.input.dense.shape(), options_.hidden_size)));
  if (saved != nullptr) saved->state<State>().ids = args.input.dense;
  return context_->kernels().embedding_forward(
      context_->exec(),
      {.ids = Flat(args.input.dense), .table = weight_.value, .out = Rows(args.output)});
}

Status Embedding::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  if (args.dinput.dense.defined())
    return InvalidArgument("{}: dinput is given; token ids have no gradient", name_);
  return CheckSaved(name_, saved);
}

Status Embedding::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (!weight_.requires_grad) return OkStatus();
  const State& state = saved->state<State>();
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, options_.params_dtype,
                                WithFeatures(state.ids.shape(), options_.hidden_size)));
  TE_ASSIGN_OR_RETURN(const bool accumulate,
                      PrepareGradient(context_, &weight_, args.accumulate_gradients));
  TE_RETURN_IF_ERROR(context_->kernels().embedding_backward(context_->exec(),
                                                            {.ids = Flat(state.ids),
                                                             .dout = Rows(args.doutput.dense),
                                                             .dtable = weight_.grad.view(),
                                                             .accumulate = accumulate,
                                                             .padding_idx = options_.padding_idx}));
  TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &weight_));
  return OkStatus();
}

void Embedding::VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) {
  visit(JoinName(prefix, weight_.name), weight_);
}

std::string Embedding::Describe(int) const {
  const std::string padding =
      options_.padding_idx < 0 ? "" : fmt::format(", padding_idx={}", options_.padding_idx);
  return fmt::format("Embedding({}, {}{}, {} parameters)", options_.vocab_size,
                     options_.hidden_size, padding, ParameterCount(weight_));
}

}  // namespace te
