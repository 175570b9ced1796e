// The interface of every layer: forward, backward in two halves, children, parameters, description.
//
// Layers use each other through this interface alone. A parent learns from Capabilities what it may
// fuse into a child (a residual, quantized gradients, codes instead of dense tensors), so that any
// child can be wrapped or replaced (WrapChild): a wrapper that passes the capabilities on changes
// nothing, one that hides them costs separate operations and leaves the numbers right.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "te_core/context.h"
#include "te_core/layers/activation.h"
#include "te_core/layers/attention_args.h"
#include "te_core/parameter.h"
#include "te_core/saved.h"

namespace te {

struct ForwardArgs {
  // Hidden states [B, S, H] / [S, B, H] or [T, K]; token ids; logits; attention's query. As codes
  // where the layer takes them (Capabilities::wants_codes, takes_codes).
  Activation input;
  TensorView output;  // the caller's; its shape is checked
  // Of a layer that leaves codes in this pass (Capabilities::leaves_codes): the codes of its output
  // are written here, in `saved`'s memory, and `output` is not. Null: `output` is wanted.
  QuantSpec* output_codes = nullptr;
  ConstTensorView labels;  // CrossEntropy alone: int32
  // Added to the output inside the last GEMM (Capabilities::takes_residual). May be the input, or
  // norm_output's memory.
  ConstTensorView residual;
  // Layers with a norm in front: the norm's output, when wanted (return_layernorm_output). In
  // training it must stay unchanged until BackwardWeight.
  TensorView norm_output;
  AttentionArgs attention;
  // False: the pass is for `saved` alone (the second run of a RecomputedLayer); the layer may leave
  // `output` unwritten.
  bool output_wanted = true;
};

// Called when the last contribution of this micro-batch to a parameter's gradient has been written
// (ordered on the stream), and after the last reading of its value in this backward pass: it may
// update the parameter. An error ends the pass.
using GradientReady = std::function<Status(Parameter&)>;

struct BackwardArgs {
  // Must stay unchanged until BackwardWeight has run. Its codes, if any, are in the memory of
  // WantedGradOutput: the layer need not cast the dense tensor, which is then read for gradients of
  // biases alone.
  Activation doutput;
  // Dense: undefined where no gradient is wanted. Quantized, beside it: memory that the layer below
  // has given (its WantedGradOutput), for layers of Capabilities::quantizes_dinput.
  Sink dinput;
  // Of a layer that has left codes in the forward pass: the codes of its input's gradient are
  // written here, in scratch of the caller's ArenaScope, instead of dinput.
  QuantSpec* dinput_codes = nullptr;
  AttentionGradients attention;
  ConstTensorView dresidual;  // of layers that take `residual`: added to dinput (what reaches the
                              // input by another path)
  ConstTensorView dnorm_output;       // gradient of the norm_output that was asked for
  bool accumulate_gradients = false;  // add to parameters' gradients instead of overwriting them
  const GradientReady* gradient_ready = nullptr;
};

// What a layer can do for its neighbours in a pass that begins now. Everything absent is safe: a
// parent then does with operations of its own what the layer does not.
struct Capabilities {
  bool takes_residual = false;     // ForwardArgs::residual and BackwardArgs::dresidual
  bool gives_norm_output = false;  // ForwardArgs::norm_output and BackwardArgs::dnorm_output
  bool quantizes_dinput = false;   // writes BackwardArgs::dinput.quant
  // In training. WantedInput has memory for codes of the input, and the output is left as codes.
  bool wants_codes = false;
  bool leaves_codes = false;
  // Takes an input that another layer has left as FP8 codes with one scale; they need not outlive
  // the call.
  bool takes_codes = false;
  // The backward pass does not read the forward pass's input, or output, again: the memory may go
  // as soon as Forward has returned.
  bool frees_input = false;
  bool frees_output = false;
  // Its work can be recorded and replayed (a CUDA graph): device work alone, at the same addresses.
  bool recordable = false;
};

// Receives a parameter and its full name.
using ParameterVisitor = std::function<void(const std::string& full_name, Parameter& parameter)>;

// Thread-compatible. Owns its parameters and children; the context must outlive it.
class Layer {
 public:
  Layer(Context* context, std::string name) : context_(context), name_(std::move(name)) {}
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  virtual Capabilities capabilities() const = 0;

  // Memory in `saved` for codes that the producer of the input can write instead of a dense tensor.
  // Begins the pass of training that the next Forward with these codes as args.input ends. Format
  // kNone: a dense input is wanted.
  virtual StatusOr<QuantSpec> WantedInput(const TokenLayout& /*layout*/, Saved* /*saved*/) {
    return QuantSpec();
  }
  // Writes args.output. `saved` null: inference (dropout off); else it receives what backward
  // needs. The layer reads args.input again in backward, unless its capabilities say otherwise: it
  // must stay unchanged until BackwardWeight.
  virtual Status Forward(const ForwardArgs& args, Saved* saved) = 0;
  // Memory out of `arena` for what a producer of doutput can write beside it, after Forward and
  // before BackwardInput; to be kept until BackwardWeight. Format kNone: nothing is wanted.
  virtual StatusOr<QuantSpec> WantedGradOutput(Saved* /*saved*/, Arena* /*arena*/) {
    return QuantSpec();
  }
  // Writes args.dinput and those parameter gradients that fall out on the way (norms); keeps in
  // `saved` what BackwardWeight needs.
  virtual Status BackwardInput(const BackwardArgs& args, Saved* saved) = 0;
  // Writes the parameter gradients of the GEMMs (wgrad); may run later than BackwardInput (delayed
  // wgrad).
  virtual Status BackwardWeight(const BackwardArgs& args, Saved* saved) = 0;
  // Both halves.
  Status Backward(const BackwardArgs& args, Saved* saved);

  struct Child {
    std::string name;  // within this layer; empty: a wrapper's, whose names are the child's
    std::unique_ptr<Layer> layer;
  };
  // In the order in which parameters are visited.
  const std::vector<Child>& children() const { return children_; }
  // Puts wrap(child) into the place of the child. The wrapper keeps the child's name and context.
  // kNotFound lists the names.
  using Wrap = std::function<std::unique_ptr<Layer>(std::unique_ptr<Layer>)>;
  Status WrapChild(std::string_view name, const Wrap& wrap);

  // Every parameter (GEMM operand), under the layer's prefix
  // ("self_attention.layernorm_qkv.weight"): the layer's own, then its children's.
  void VisitParameters(const std::string& prefix, const ParameterVisitor& visit);
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
  // The parameters that are no child's.
  virtual void VisitOwnParameters(const std::string& /*prefix*/, const ParameterVisitor&) {}
  void AddChild(std::string name, std::unique_ptr<Layer> layer) {
    children_.push_back({std::move(name), std::move(layer)});
  }
  // In the order of AddChild.
  Layer* child(size_t index) const { return children_[index].layer.get(); }
  // Type(
  //   (name): child
  // )
  std::string DescribeTree(const std::string& type, int indent) const;

  Context* context_;
  std::string name_;

 private:
  std::vector<Child> children_;
};

// prefix + "." + name; one of them alone where the other is empty.
std::string JoinName(const std::string& prefix, const std::string& name);

}  // namespace te
