// One block of a transformer (Transformer Engine's TransformerLayer, layer_type "encoder"):
//   h = x + dropout(self_attention(x));  y = h + dropout(layernorm_mlp(h))
// apply_residual_connection_post_layernorm: the residuals are the norms' outputs instead of x and
// h. output_layernorm: self_attention has no norm of its own (and its residual is x), and y goes
// through `layernorm`. parallel_attention_mlp: y = x + dropout(self_attention(x)) +
// dropout(layernorm_mlp(x)).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "te_core/layers/layer_norm_mlp.h"
#include "te_core/layers/multihead_attention.h"
#include "te_core/layers/norm.h"

namespace te {

struct TransformerLayerOptions {
  int64_t hidden_size = 0;
  int64_t ffn_hidden_size = 0;
  int64_t num_attention_heads = 0;
  int64_t num_gqa_groups = 0;  // 0: num_attention_heads
  int64_t kv_channels = 0;     // head_dim; 0: hidden_size / num_attention_heads
  float layernorm_epsilon = 1e-5f;
  float hidden_dropout = 0.1f;
  float attention_dropout = 0.1f;
  AttentionMaskType self_attn_mask_type = AttentionMaskType::kCausal;
  WindowSize window_size;
  float softmax_scale = 0;  // 0: 1 / sqrt(kv_channels)
  bool apply_residual_connection_post_layernorm = false;
  bool output_layernorm = false;
  bool parallel_attention_mlp = false;
  bool fuse_qkv_params = false;
  bool qkv_weight_interleaved = true;  // of a fused QKV weight alone
  bool bias = true;
  std::optional<bool> qkv_bias;   // absent: bias
  std::optional<bool> proj_bias;  // absent: bias
  std::optional<bool> mlp_bias;   // absent: bias; fc1 and fc2
  NormalizationKind normalization = NormalizationKind::kLayerNorm;
  bool zero_centered_gamma = false;
  ActivationKind activation = ActivationKind::kGelu;
  ActivationParams activation_params;  // clamped_swiglu
  AttentionFormat attn_input_format = AttentionFormat::kSbhd;
  int layer_number = 0;  // in messages alone; 0: none
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;
  float output_layer_init_method_std = 0.023f;  // proj and fc2
  bool perform_initialization =
      true;  // false: the weights' contents are undefined until they are set
};

// input, output [B, S, hidden_size] (bshd) or [S, B, hidden_size] (sbhd), dense, not overlapping.
// args.attention as in MultiheadAttention. Parameters: self_attention.*, layernorm_mlp.*, and
// layernorm.weight, .bias with output_layernorm.
class TransformerLayer : public Layer {
 public:
  static StatusOr<std::unique_ptr<TransformerLayer>> Create(Context* context,
                                                            const TransformerLayerOptions& options,
                                                            std::string name);

  Capabilities capabilities() const override;
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const TransformerLayerOptions& options() const { return options_; }
  // The random streams of the dropouts after attention and after the MLP, and of core attention's.
  std::pair<uint32_t, uint32_t> hidden_dropout_streams() const {
    return {attention_dropout_stream_, mlp_dropout_stream_};
  }
  uint32_t core_attention_stream() const { return core_attention_stream_; }

 private:
  struct State;
  using Layer::Layer;

  Status Located(Status status) const;
  Status ForwardBlock(const ForwardArgs& args, Saved* saved);
  Status BackwardInputBlock(const BackwardArgs& args, Saved* saved);
  Status BackwardWeightBlock(const BackwardArgs& args, Saved* saved);
  Status AddLayer(Layer* layer, ForwardArgs args, ConstTensorView residual,
                  const RandomState& random, TensorView out, Saved* saved);
  Status BackwardResidual(Layer* layer, BackwardArgs args, ConstTensorView dresidual, Saved* saved);
  StatusOr<TensorView> DropoutBackward(ConstTensorView dout, const RandomState& random,
                                       Saved* saved);

  // Children, and nodes of the saved state; the last with output_layernorm alone.
  static constexpr size_t kAttention = 0, kMlp = 1, kNorm = 2;

  TransformerLayerOptions options_;
  uint32_t attention_dropout_stream_ = 0;  // the hidden dropouts after attention and after the MLP
  uint32_t mlp_dropout_stream_ = 0;
  uint32_t core_attention_stream_ = 0;
};

}  // namespace te
