#include "te_core/transformer/transformer_block.h"

#include <utility>

namespace te {

struct TransformerBlock::State : SavedState {
  std::vector<ConstTensorView> x;  // input of layer i, then the last layer's output
  std::vector<Arena::Mark> marks;  // where layer i's activations begin
  // Quantized copies of gradients, where a layer asks for them: in turns.
  std::unique_ptr<Arena> quantized[2];
};

TransformerBlock::TransformerBlock(Context* context, std::vector<std::unique_ptr<Layer>> layers)
    : context_(context), layers_(std::move(layers)) {}

TransformerBlock::~TransformerBlock() = default;

bool TransformerBlock::recordable() const {
  for (const std::unique_ptr<Layer>& layer : layers_)
    if (!layer->capabilities().recordable) return false;
  return true;
}

Status TransformerBlock::Forward(const ForwardArgs& args, Saved* saved) {
  State& state = saved->state<State>();
  state.x.clear();
  state.marks.clear();
  ForwardArgs layer = args;
  const DType dtype = args.input.dense.dtype();
  const Shape shape = args.input.dense.shape();
  for (size_t i = 0; i < layers_.size(); ++i) {
    state.x.push_back(layer.input.dense);
    state.marks.push_back(saved->arena()->Here());
    TE_ASSIGN_OR_RETURN(layer.output, saved->Allocate(dtype, shape));
    TE_RETURN_IF_ERROR(layers_[i]->Forward(layer, saved->child(i)));
    layer.input = layer.output;
  }
  state.x.push_back(layer.input.dense);
  return OkStatus();
}

ConstTensorView TransformerBlock::HiddenState(Saved* saved, size_t index) const {
  return saved->state<State>().x[index];
}

StatusOr<TensorView> TransformerBlock::Infer(TensorView x, TensorView y,
                                             const AttentionArgs& attention,
                                             std::span<KeyValueCache> caches) {
  ForwardArgs args;
  args.attention = attention;
  for (size_t i = 0; i < layers_.size(); ++i) {
    args.input = x;
    args.output = y;
    if (!caches.empty()) args.attention.cache = &caches[i];
    TE_RETURN_IF_ERROR(layers_[i]->Forward(args, nullptr));
    std::swap(x, y);
  }
  return x;
}

StatusOr<QuantSpec> TransformerBlock::WantedOf(size_t index, Saved* saved) const {
  std::unique_ptr<Arena>& arena = saved->state<State>().quantized[index % 2];
  if (arena == nullptr) arena = std::make_unique<Arena>(context_->memory());
  TE_RETURN_IF_ERROR(arena->Reset());
  return layers_[index]->WantedGradOutput(saved->child(index), arena.get());
}

StatusOr<QuantSpec> TransformerBlock::WantedGradOutput(Saved* saved) const {
  return WantedOf(layers_.size() - 1, saved);
}

StatusOr<TensorView> TransformerBlock::Backward(BackwardArgs args, Saved* saved) {
  State& state = saved->state<State>();
  te::BackwardArgs layer;
  layer.accumulate_gradients = args.accumulate_gradients;
  layer.gradient_ready = args.gradient_ready;
  TensorView dy = args.doutput, dx = args.other;
  layer.dinput.quant = args.doutput_codes;
  for (size_t i = layers_.size(); i-- > 0; std::swap(dy, dx)) {
    layer.doutput = dy;
    layer.doutput.codes = layer.dinput.quant;
    layer.dinput = dx;
    if (i > 0 && layers_[i]->capabilities().quantizes_dinput) {
      TE_ASSIGN_OR_RETURN(layer.dinput.quant, WantedOf(i - 1, saved));
    }
    if (args.before_layer) TE_RETURN_IF_ERROR(args.before_layer(i));
    TE_RETURN_IF_ERROR(layers_[i]->Backward(layer, saved->child(i)));
    saved->arena()->Rewind(state.marks[i]);
  }
  return dy;
}

}  // namespace te
