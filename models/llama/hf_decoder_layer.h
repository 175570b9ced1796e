// Hugging Face's LlamaDecoderLayer, operation by operation (transformers,
// models/llama/modeling_llama.py, eager attention): the baseline for numbers and for speed. It owns
// no weights: it runs over those of another layer.
#pragma once

#include <string>

#include "models/llama/config.h"
#include "te_core/layers/layer.h"

namespace te {

// Views of the weights, in Hugging Face's decomposition. `parameter` is null where the config has
// no bias.
struct LlamaDecoderWeights {
  NamedParameter input_layernorm;
  NamedParameter q, k, v, o;
  NamedParameter q_bias, k_bias, v_bias, o_bias;
  NamedParameter post_attention_layernorm;
  NamedParameter gate, up, down;
  NamedParameter gate_bias, up_bias, down_bias;
};

// input and output [B, S, H]; float32 or bfloat16, the weights' dtype. Attention: causal, plus
// args.attention.padding_mask (uint8 [B, S], nonzero = padding) when defined. The scores exist
// whole: [B, n, S, S]. No key-value cache (kUnsupported).
class LlamaHfDecoderLayer : public Layer {
 public:
  // The parameters must outlive the layer. Draws one random stream from the context when
  // attention_dropout is not 0.
  LlamaHfDecoderLayer(Context* context, std::string name, const LlamaConfig& config,
                      const LlamaDecoderWeights& weights);

  Capabilities capabilities() const override { return {.frees_output = true, .recordable = true}; }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

 private:
  struct State;
  // The two halves of the layer; they write state's tensors.
  Status ForwardAttention(const ForwardArgs& args, State* state, Arena* arena);
  Status ForwardMlp(TensorView output, State* state, Arena* arena);
  Status BackwardMlp(ConstTensorView dy, bool accumulate, State* state, Arena* arena);
  Status BackwardAttention(TensorView dx, bool accumulate, State* state, Arena* arena);
  AttentionMask Mask(ConstTensorView padding) const;

  LlamaConfig config_;
  LlamaDecoderWeights w_;
  uint32_t dropout_stream_ = 0;
};

}  // namespace te
