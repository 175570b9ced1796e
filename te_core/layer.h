// The interface of every layer: forward, backward in two halves, parameters, description.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "te_core/context.h"
#include "te_core/parameter.h"
#include "te_core/saved.h"
#include "te_kernels/attention/attention_mask.h"

namespace te {

// Cosines and sines of rotary_position_embedding.h: float32 [positions, rotary_dim / 2]. Undefined:
// no rotation.
struct RotaryTable {
  ConstTensorView cos;
  ConstTensorView sin;
  bool interleaved = false;
};

// Keys and values of the tokens seen so far, for one attention layer (inference).
struct KeyValueCache {
  Tensor key;          // [batch, capacity, num_gqa_groups, head_dim], rotated
  Tensor value;        // [batch, capacity, num_gqa_groups, head_dim]
  int64_t length = 0;  // tokens held; attention layers append and advance it
};

// What attention needs besides hidden states. Masks in Transformer Engine's convention: nonzero =
// masked out.
struct AttentionInputs {
  ConstTensorView padding_mask;       // uint8 [B, Skv]: mask types with "padding"
  bool padding_on_the_right = false;  // AttentionMask::padding_on_the_right
  ConstTensorView arbitrary_mask;     // uint8 [B or 1, n or 1, Sq, Skv]: mask type "arbitrary"
  RotaryTable rotary;
  ConstTensorView positions;  // int32 [B, S], optional; else start_position + s
  int64_t start_position = 0;
  KeyValueCache* cache = nullptr;  // inference only
};

struct ForwardArgs {
  ConstTensorView
      input;  // hidden states [B, S, H] / [S, B, H] or [T, K]; token ids; logits; attention's query
  TensorView output;    // the caller's; its shape is checked
  ConstTensorView key;  // DotProductAttention alone
  ConstTensorView value;
  ConstTensorView labels;  // CrossEntropy alone: int32
  // Added to the output inside the last GEMM: Linear, LayerNormLinear, LayerNormMLP,
  // MultiheadAttention. May be the input, or norm_output's memory.
  ConstTensorView residual;
  // Layers with a norm in front: the norm's output, when wanted (return_layernorm_output). In
  // training it must stay unchanged until BackwardWeight.
  TensorView norm_output;
  AttentionInputs attention;
  // False: the pass is for `saved` alone (the second run of a RecomputedLayer); the layer may leave
  // `output` unwritten.
  bool output_wanted = true;
};

// Called when the last contribution of this micro-batch to a parameter's gradient has been written
// (ordered on the stream), and after the last reading of its value in this backward pass: it may
// update the parameter. An error ends the pass.
using GradientReady = std::function<Status(Parameter&)>;

struct BackwardArgs {
  ConstTensorView doutput;  // must stay unchanged until BackwardWeight has run
  TensorView dinput;        // undefined: not wanted
  TensorView dkey;          // DotProductAttention alone
  TensorView dvalue;
  ConstTensorView dresidual;  // of layers that take `residual`: added to dinput (what reaches the
                              // input by another path)
  ConstTensorView dnorm_output;  // gradient of the norm_output that was asked for
  // doutput quantized, in the memory of GradOutputQuant: the layer need not cast it. doutput itself
  // is then read for gradients of biases alone.
  QuantSpec doutput_quant;
  // Where to write dinput quantized, too: GradOutputQuant of the layer that takes it as doutput.
  QuantSpec dinput_quant;
  bool accumulate_gradients = false;  // add to parameters' gradients instead of overwriting them
  const GradientReady* gradient_ready = nullptr;
};

// Receives a parameter and its full name.
using ParameterVisitor = std::function<void(const std::string& full_name, Parameter& parameter)>;

// Thread-compatible. Owns its parameters; the context must outlive it.
class Layer {
 public:
  Layer(Context* context, std::string name) : context_(context), name_(std::move(name)) {}
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Writes args.output. `saved` null: inference (dropout off); else it receives what backward
  // needs. The layer reads args.input again in backward: it must stay unchanged until
  // BackwardWeight.
  virtual Status Forward(const ForwardArgs& args, Saved* saved) = 0;
  // Writes args.dinput and those parameter gradients that fall out on the way (norms); keeps in
  // `saved` what BackwardWeight needs.
  virtual Status BackwardInput(const BackwardArgs& args, Saved* saved) = 0;
  // Writes the parameter gradients of the GEMMs (wgrad); may run later than BackwardInput (delayed
  // wgrad).
  virtual Status BackwardWeight(const BackwardArgs& args, Saved* saved) = 0;
  // Memory out of `arena` for what a producer of doutput can write beside it, after Forward and
  // before BackwardInput; to be kept until BackwardWeight. Format kNone: nothing is wanted.
  virtual StatusOr<QuantSpec> GradOutputQuant(Saved* /*saved*/, Arena* /*arena*/) {
    return QuantSpec();
  }
  // Both halves.
  Status Backward(const BackwardArgs& args, Saved* saved);

  // Every parameter (GEMM operand), under the layer's prefix
  // ("self_attention.layernorm_qkv.weight").
  virtual void VisitParameters(const std::string& prefix, const ParameterVisitor& visit) = 0;
  // The module tree, one line a module, indented, in the style of PyTorch's repr:
  //   TransformerLayer(
  //     (self_attention): MultiheadAttention(
  //       (layernorm_qkv): LayerNormLinear(in_features=..., ...)
  virtual std::string Describe(int indent) const = 0;

  // Parameters with their slices as separate entries, in Transformer Engine's state-dict names.
  std::vector<NamedParameter> NamedParameters();
  // One entry a parameter buffer (what an optimizer works on).
  std::vector<Parameter*> Parameters();
  // Gives every trainable parameter a gradient buffer.
  Status EnsureGradients();

  Context* context() const { return context_; }
  const std::string& name() const { return name_; }

 protected:
  Context* context_;
  std::string name_;
};

// prefix + "." + name, or name alone.
std::string JoinName(const std::string& prefix, const std::string& name);

}  // namespace te
