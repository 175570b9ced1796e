#include "models/llama/llama_model.h"

#include <algorithm>
#include <utility>

#include "models/llama/hf_lm_head.h"

namespace te {
namespace {

constexpr size_t kEmbedding = 0, kDecoder = 1, kNorm = 2;  // children of the saved node

// Whether each row of `padding` (nonzero = padding) masks its end alone, and not all of it: kernels
// may then go by lengths.
bool PaddingIsOnTheRight(const std::vector<uint8_t>& padding, int64_t sequence) {
  for (size_t row = 0; row < padding.size(); row += static_cast<size_t>(sequence)) {
    const auto begin = padding.begin() + static_cast<std::ptrdiff_t>(row);
    if (*begin != 0 || !std::is_sorted(begin, begin + sequence)) return false;
  }
  return true;
}

}  // namespace

// What Backward needs of a forward pass, besides the layers' own states (the slot's children).
struct LlamaModel::PassState : SavedState {
  TensorView ids;      // int32 [B, S]
  TensorView labels;   // int32 [B S], shifted
  TensorView padding;  // uint8 [B, S], nonzero = padding; undefined: none
  bool padding_on_the_right = false;
  RotaryTable rotary;
  TensorView normed;  // [B, S, H]
  TensorView dx[2];   // gradients of hidden states, in turns
  GemmPass head;      // what the forward pass's scope says of lm_head
  bool forward_done = false;
  bool done = false;  // has had its backward
};

bool CountsAnyLabel(const LlamaBatch& batch) {
  const auto sequence = static_cast<size_t>(batch.sequence);
  for (size_t i = 0; i < batch.labels.size(); ++i)
    if (i % sequence != 0 && batch.labels[i] != kIgnoreIndex) return true;
  return false;
}

const char* Name(LlamaPath path) { return path == LlamaPath::kTe ? "te" : "hf"; }

StatusOr<LlamaPath> ParseLlamaPath(std::string_view name) {
  if (name == "te") return LlamaPath::kTe;
  if (name == "hf") return LlamaPath::kHf;
  return InvalidArgument("path is '{}'; expected te or hf", name);
}

const char* Name(RecomputeGranularity granularity) {
  return granularity == RecomputeGranularity::kNone ? "none" : "full";
}

StatusOr<RecomputeGranularity> ParseRecomputeGranularity(std::string_view name) {
  for (const auto granularity : {RecomputeGranularity::kNone, RecomputeGranularity::kFull})
    if (name == Name(granularity)) return granularity;
  return InvalidArgument("recompute granularity is '{}'; expected none or full", name);
}

LlamaModel::LlamaModel(Context* context, const LlamaConfig& config,
                       const LlamaModelOptions& options)
    : context_(context), config_(config), options_(options), pool_(context->memory()) {}

LlamaModel::~LlamaModel() = default;

const LlamaTensor* LlamaModel::FindTensor(std::string_view hf_name) const {
  for (const LlamaTensor& tensor : tensors_) {
    if (tensor.name.hf_name == hf_name) return &tensor;
  }
  return nullptr;
}

Status LlamaModel::EnsureGradients() {
  for (Parameter* parameter : parameters_)
    TE_RETURN_IF_ERROR(parameter->EnsureGrad(context_->memory()));
  return OkStatus();
}

Status LlamaModel::ShareGradients() {
  const auto shares = [&](const Parameter& p) {
    return p.requires_grad && p.shape().rank() == 2 &&
           !(config_.tie_word_embeddings && &p == &embedding_->weight());
  };
  int64_t largest = 0;
  for (const Parameter* p : parameters_)
    if (shares(*p)) largest = std::max(largest, p->shape().elements());
  TE_ASSIGN_OR_RETURN(shared_gradient_, context_->NewTensor(options_.params_dtype, {largest}));
  for (Parameter* p : parameters_) {
    if (shares(*p)) {
      p->grad = Tensor::Borrow(
          TensorView(shared_gradient_.view().data(), options_.params_dtype, p->shape()));
    } else {
      TE_RETURN_IF_ERROR(p->EnsureGrad(context_->memory()));
    }
  }
  return OkStatus();
}

Status LlamaModel::Check(const LlamaBatch& batch) const {
  if (batch.batch < 1 || batch.sequence < 1) {
    return InvalidArgument("batch is [{}, {}]; expected at least one row and one token",
                           batch.batch, batch.sequence);
  }
  int64_t tokens = 0;
  if (__builtin_mul_overflow(batch.batch, batch.sequence, &tokens) ||
      batch.input_ids.size() != static_cast<size_t>(tokens)) {
    return InvalidArgument("input_ids has {} elements; expected batch {} times sequence {}",
                           batch.input_ids.size(), batch.batch, batch.sequence);
  }
  if (!batch.labels.empty() && batch.labels.size() != batch.input_ids.size()) {
    return InvalidArgument("labels has {} elements; expected {} as input_ids", batch.labels.size(),
                           tokens);
  }
  if (!batch.attention_mask.empty() && batch.attention_mask.size() != batch.input_ids.size()) {
    return InvalidArgument("attention_mask has {} elements; expected {} as input_ids",
                           batch.attention_mask.size(), tokens);
  }
  // Here and not in a kernel: a device could not name the element without a round trip.
  const auto where = [&](size_t i) {
    return fmt::format("[{}, {}]", i / static_cast<size_t>(batch.sequence),
                       i % static_cast<size_t>(batch.sequence));
  };
  for (size_t i = 0; i < batch.input_ids.size(); ++i) {
    if (batch.input_ids[i] < 0 || batch.input_ids[i] >= config_.vocab_size) {
      return InvalidArgument("input_ids{} is {}; expected a token from 0 to {} (vocab_size - 1)",
                             where(i), batch.input_ids[i], config_.vocab_size - 1);
    }
  }
  for (size_t i = 0; i < batch.labels.size(); ++i) {
    const int32_t label = batch.labels[i];
    if (label != kIgnoreIndex && (label < 0 || label >= config_.vocab_size)) {
      return InvalidArgument("labels{} is {}; expected {} or a token from 0 to {} (vocab_size - 1)",
                             where(i), label, kIgnoreIndex, config_.vocab_size - 1);
    }
  }
  for (size_t i = 0; i < batch.attention_mask.size(); ++i) {
    if (batch.attention_mask[i] > 1) {
      return InvalidArgument("attention_mask{} is {}; expected 1 (keep) or 0 (padding)", where(i),
                             batch.attention_mask[i]);
    }
  }
  return OkStatus();
}

StatusOr<LlamaModel::Pass> LlamaModel::Forward(const LlamaBatch& batch) {
  TE_RETURN_IF_ERROR(Check(batch));
  TE_ASSIGN_OR_RETURN(Pass pass, Prepare(batch));
  TE_RETURN_IF_ERROR(RunForward(&pass));
  return pass;
}

StatusOr<LlamaModel::Pass> LlamaModel::Prepare(const LlamaBatch& batch) {
  TE_ASSIGN_OR_RETURN(Pass pass, pool_.Acquire());
  TE_RETURN_IF_ERROR(Upload(batch, &pass->root, &pass->root.state<PassState>()));
  return pass;
}

Status LlamaModel::Upload(const LlamaBatch& batch, Saved* root, PassState* state) {
  const int64_t B = batch.batch, S = batch.sequence;
  state->forward_done = false;
  state->done = false;
  state->labels = TensorView();
  state->padding = TensorView();
  state->padding_on_the_right = false;
  TE_ASSIGN_OR_RETURN(state->ids, root->Allocate(DType::kInt32, {B, S}));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(batch.input_ids.data(), state->ids));
  if (!batch.labels.empty()) {
    // Position s predicts token s + 1: the labels move one to the left, and the last position
    // predicts nothing.
    std::vector<int32_t> shifted(batch.labels.begin() + 1, batch.labels.end());
    shifted.push_back(kIgnoreIndex);
    for (int64_t b = 1; b < B; ++b) shifted[static_cast<size_t>(b * S - 1)] = kIgnoreIndex;
    TE_ASSIGN_OR_RETURN(state->labels, root->Allocate(DType::kInt32, {B, S}));
    TE_RETURN_IF_ERROR(context_->CopyFromHost(shifted.data(), state->labels));
  }
  std::vector<uint8_t> padding(batch.attention_mask.begin(), batch.attention_mask.end());
  bool any = false;
  for (uint8_t& keep : padding) {
    any = any || keep == 0;
    keep = keep == 0;
  }
  if (any) {
    state->padding_on_the_right = PaddingIsOnTheRight(padding, S);
    TE_ASSIGN_OR_RETURN(state->padding, root->Allocate(DType::kUInt8, {B, S}));
    TE_RETURN_IF_ERROR(context_->CopyFromHost(padding.data(), state->padding));
  }
  TE_ASSIGN_OR_RETURN(state->rotary, rotary_->Table(S));
  return OkStatus();
}

Status LlamaModel::RunForward(Pass* pass) {
  if (pass->get() == nullptr) return FailedPrecondition("forward: the pass has been released");
  Saved& root = (*pass)->root;
  PassState* state = &root.state<PassState>();
  if (state->forward_done) return FailedPrecondition("forward: this pass has had its forward");
  const DType dtype = options_.params_dtype;
  // Before the layers' activations, so that giving those back leaves these alone.
  const Shape hidden = {state->ids.dim(0), state->ids.dim(1), config_.hidden_size};
  for (TensorView& dx : state->dx) {
    TE_ASSIGN_OR_RETURN(dx, root.Allocate(dtype, hidden));
  }
  TE_ASSIGN_OR_RETURN(const TensorView x, root.Allocate(dtype, hidden));
  ForwardArgs embed;
  embed.input = state->ids;
  embed.output = x;
  TE_RETURN_IF_ERROR(embedding_->Forward(embed, root.child(kEmbedding)));
  ForwardArgs layers;
  layers.input = x;
  layers.attention.padding_mask = state->padding;
  layers.attention.padding_on_the_right = state->padding_on_the_right;
  layers.attention.rotary = state->rotary;
  TE_RETURN_IF_ERROR(decoder_->Forward(layers, root.child(kDecoder)));
  TE_ASSIGN_OR_RETURN(state->normed, root.Allocate(dtype, hidden));
  ForwardArgs norm;
  norm.input = decoder_->HiddenState(root.child(kDecoder), decoder_->size());
  norm.output = state->normed;
  TE_RETURN_IF_ERROR(norm_->Forward(norm, root.child(kNorm)));
  state->head = head_->NewPass();
  state->forward_done = true;
  return OkStatus();
}

Status LlamaModel::Head(const LinearCrossEntropyArgs& args) {
  if (options_.path == LlamaPath::kTe) return head_->Run(args);
  TE_RETURN_IF_ERROR(RunLlamaHfHead(context_, &head_->weight(), args));
  // A tied weight waits for the embedding's part.
  if (args.gradient_ready != nullptr && !config_.tie_word_embeddings &&
      head_->weight().requires_grad) {
    TE_RETURN_IF_ERROR((*args.gradient_ready)(head_->weight()));
  }
  return OkStatus();
}

Status LlamaModel::EvaluateLoss(Pass* pass) {
  const PassState& state = (*pass)->root.state<PassState>();
  if (!state.labels.defined())
    return FailedPrecondition("evaluate loss: the forward pass had no labels");
  if (!state.forward_done) return FailedPrecondition("evaluate loss: this pass has had no forward");
  if (state.done) return FailedPrecondition("evaluate loss: this pass has had its backward");
  return Head({.input = state.normed, .labels = state.labels, .scalars = context_->scalars()});
}

Status LlamaModel::LendGradients(Layer* layer, Arena* arena) {
  for (Parameter* parameter : layer->Parameters()) {
    if (!parameter->requires_grad) continue;
    TE_ASSIGN_OR_RETURN(const TensorView grad,
                        arena->AllocateAtEnd(parameter->dtype(), parameter->shape()));
    parameter->grad = Tensor::Borrow(grad);
  }
  return OkStatus();
}

Status LlamaModel::CountLabels(Pass* pass) {
  const PassState& state = (*pass)->root.state<PassState>();
  if (!state.labels.defined()) return FailedPrecondition("count labels: the pass has no labels");
  return context_->kernels().count_labels(
      context_->exec(), {.labels = state.labels.Reshape({state.labels.elements()}),
                         .ignore_index = kIgnoreIndex,
                         .count = &context_->scalars()->token_count});
}

std::string LlamaModel::KeyOf(const Pass& pass) const {
  const PassState& state = pass->root.state<PassState>();
  return fmt::format("{} {} labels {} padding {}{}", state.ids.ToString(), state.ids.data(),
                     state.labels.data(), state.padding.data(),
                     state.padding_on_the_right ? " right" : "");
}

Status LlamaModel::Backward(Pass* pass, const LlamaBackwardOptions& options) {
  if (pass->get() == nullptr) return FailedPrecondition("backward: the pass has been released");
  Saved& root = (*pass)->root;
  PassState& state = root.state<PassState>();
  if (!state.labels.defined())
    return FailedPrecondition("backward: the forward pass had no labels");
  if (!state.forward_done) return FailedPrecondition("backward: this pass has had no forward");
  if (state.done)
    return FailedPrecondition(
        "backward: this pass has had its backward; expected one for each forward");
  if (options.lend_gradients && options.accumulate_gradients) {
    return InvalidArgument(
        "backward: lend_gradients with accumulate_gradients: a lent buffer "
        "holds nothing to add to");
  }
  for (const Parameter* parameter : parameters_) {
    if (!options.lend_gradients && parameter->requires_grad && !parameter->grad.defined()) {
      return FailedPrecondition(
          "backward: parameter {} has no gradient buffer; call EnsureGradients first",
          parameter->name);
    }
  }
  state.done = true;
  const TensorView &dy = state.dx[0], &dx = state.dx[1];
  const auto lend = [&](Layer* layer) {
    return options.lend_gradients ? LendGradients(layer, root.arena()) : OkStatus();
  };
  TE_RETURN_IF_ERROR(lend(config_.tie_word_embeddings ? static_cast<Layer*>(embedding_.get())
                                                      : static_cast<Layer*>(head_.get())));
  TE_RETURN_IF_ERROR(lend(norm_.get()));
  TE_RETURN_IF_ERROR(Head({.input = state.normed,
                           .labels = state.labels,
                           .scalars = context_->scalars(),
                           .dinput = dy,
                           .pass = &state.head,
                           .weight_gradient = true,
                           .accumulate_gradients = options.accumulate_gradients,
                           .gradient_ready = options.gradient_ready}));
  BackwardArgs norm;
  norm.accumulate_gradients = options.accumulate_gradients;
  norm.gradient_ready = options.gradient_ready;
  norm.doutput = dy;
  norm.dinput = dx;
  Saved* const decoder = root.child(kDecoder);
  TE_ASSIGN_OR_RETURN(norm.dinput.quant, decoder_->WantedGradOutput(decoder));
  TE_RETURN_IF_ERROR(norm_->Backward(norm, root.child(kNorm)));
  BackwardArgs embedding;
  TE_ASSIGN_OR_RETURN(embedding.doutput,
                      decoder_->Backward({.doutput = dx,
                                          .doutput_codes = norm.dinput.quant,
                                          .other = dy,
                                          .accumulate_gradients = options.accumulate_gradients,
                                          .gradient_ready = options.gradient_ready,
                                          .before_layer = [&](size_t i) { return lend(owner(i)); }},
                                         decoder));
  if (!config_.tie_word_embeddings) TE_RETURN_IF_ERROR(lend(embedding_.get()));
  embedding.accumulate_gradients = options.accumulate_gradients || config_.tie_word_embeddings;
  embedding.gradient_ready = options.gradient_ready;
  return embedding_->Backward(embedding, root.child(kEmbedding));
}

Status LlamaModel::RunMicroBatch(const LlamaBatch& batch, const LlamaBackwardOptions& options) {
  if (batch.labels.empty())
    return InvalidArgument("labels are missing; expected one for each token of input_ids");
  TE_ASSIGN_OR_RETURN(Pass pass, Forward(batch));
  return Backward(&pass, options);
}

ConstTensorView LlamaModel::HiddenState(const Pass& pass, int64_t index) const {
  const PassState& state = pass->root.state<PassState>();
  return index == config_.num_hidden_layers
             ? state.normed
             : decoder_->HiddenState(pass->root.child(kDecoder), static_cast<size_t>(index));
}

Status LlamaModel::Logits(const Pass& pass, TensorView out) {
  const PassState& state = pass->root.state<PassState>();
  const ConstTensorView x = state.normed.Reshape({state.ids.elements(), config_.hidden_size});
  return context_->kernels().gemm(
      context_->exec(),
      {.kind = GemmKind::kFprop, .a = x, .b = head_->weight().value.view(), .d = out});
}

std::string LlamaModel::Describe() const {
  const int64_t layers = config_.num_hidden_layers;
  // As PyTorch prints a ModuleList of equal modules.
  const std::string label =
      layers == 1 ? "(0): " : fmt::format("(0-{}): {} x ", layers - 1, layers);
  return fmt::format(
      "LlamaForCausalLM(\n"
      "  (model): LlamaModel(\n"
      "    (embed_tokens): {}\n"
      "    (layers): ModuleList(\n"
      "      {}{}\n"
      "    )\n"
      "    (norm): {}\n"
      "  )\n"
      "  (lm_head): {}{}\n"
      ")",
      embedding_->Describe(4), label, owner(0)->Describe(6), norm_->Describe(4), head_->Describe(2),
      config_.tie_word_embeddings ? " (weight tied to model.embed_tokens.weight)" : "");
}

}  // namespace te
