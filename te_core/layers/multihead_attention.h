// Self-attention with its projections (Transformer Engine's MultiheadAttention):
//   [q | k | v] = layernorm_qkv(x) (or qkv(x) without input_layernorm);  y =
//   proj(core_attention(rope(q), rope(k), v))
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "te_core/layers/dot_product_attention.h"
#include "te_core/layers/layer_norm_linear.h"
#include "te_core/layers/linear.h"

namespace te {

struct MultiheadAttentionOptions {
  int64_t hidden_size = 0;
  int64_t num_attention_heads = 0;
  int64_t kv_channels = 0;     // head_dim; 0: hidden_size / num_attention_heads
  int64_t num_gqa_groups = 0;  // 0: num_attention_heads
  float attention_dropout = 0.1f;
  float layernorm_epsilon = 1e-5f;
  AttentionMaskType attn_mask_type = AttentionMaskType::kCausal;
  WindowSize window_size;
  float softmax_scale = 0;  // 0: 1 / sqrt(kv_channels)
  bool input_layernorm = false;
  NormalizationKind normalization = NormalizationKind::kLayerNorm;
  bool zero_centered_gamma = false;
  bool bias = true;
  std::optional<bool> qkv_bias;   // absent: bias
  std::optional<bool> proj_bias;  // absent: bias
  // false: parameters query_weight, key_weight and value_weight (and _bias), each a range of one
  // GEMM operand's rows. true: one weight (and bias).
  bool fuse_qkv_params = false;
  // Of a fused weight: rows [num_gqa_groups, heads / group + 2, head_dim] (a group's queries, its
  // key, its value); false: all of Q, then K, then V. Unfused parameters are always Q, K, V.
  bool qkv_weight_interleaved = true;
  AttentionFormat qkv_format = AttentionFormat::kSbhd;
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;               // qkv
  float output_layer_init_method_std = 0.023f;  // proj
  bool perform_initialization = true;
};

// input, output [B, S, hidden_size] (bshd) or [S, B, hidden_size] (sbhd), dense; takes residual and
// dresidual, and with input_layernorm norm_output and dnorm_output. args.attention: masks of the
// mask type, rotation when its tables are defined.
//
// Children: layernorm_qkv (LayerNormLinear) or qkv (Linear), core_attention (DotProductAttention),
// proj (Linear). Where core attention quantizes and its neighbours take part, queries, keys, values
// and their gradients travel as codes.
//
// With args.attention.cache (inference): keys (rotated) and values of the input's tokens are
// appended, cache->length advances by S, and the queries see all that the cache holds; causal types
// become their bottom-right forms, and masks have Skv = the new length. Positions are
// args.attention.positions, else cache->length + s (start_position must be 0 or cache->length). A
// finite window needs a causal type. On failure the cache's length is unchanged.
//
// Parameters: layernorm_qkv.* (or qkv.*), proj.weight, proj.bias.
class MultiheadAttention : public Layer {
 public:
  static StatusOr<std::unique_ptr<MultiheadAttention>> Create(
      Context* context, const MultiheadAttentionOptions& options, std::string name);

  Capabilities capabilities() const override;
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const MultiheadAttentionOptions& options() const { return options_; }  // zeros resolved
  uint32_t core_attention_stream() const { return core_attention_stream_; }
  // Keys and values for `batch` sequences of up to `capacity` tokens, empty.
  StatusOr<KeyValueCache> NewCache(int64_t batch, int64_t capacity) const;

 private:
  struct State;
  struct Heads;
  using Layer::Layer;

  bool interleaved() const { return options_.fuse_qkv_params && options_.qkv_weight_interleaved; }
  int64_t qkv_features() const {
    return (options_.num_attention_heads + 2 * options_.num_gqa_groups) * options_.kv_channels;
  }
  // Query, key and value of a packed [.., .., qkv_features] buffer, batch first.
  Heads SplitHeads(TensorView packed) const;
  // The queries of an interleaved buffer: [B, S, g, (n / g) d].
  TensorView GroupedQueries(TensorView packed) const;
  Status Rotate(TensorView packed, const RotaryTable& rotary, ConstTensorView positions,
                int64_t start_position, bool inverse) const;
  // Whether queries, keys and values each lie side by side in the packed buffer.
  bool one_block() const { return !interleaved() || options_.num_gqa_groups == 1; }
  // A packed buffer's heads, in hidden states' order.
  TensorView AllHeads(const TensorView& packed) const;
  // The rotation of queries and keys of a packed buffer of one block, values copied, but for x, y.
  RopeArgs PackedRotation(const State& state, bool inverse) const;
  // Of the QKV product, by way of codes: rotation, core attention in FP8, proj.
  Status ForwardCodes(const TensorView& qkv, const ForwardArgs& args, Saved* saved);
  // From the gradient of core attention's output [B, S, n, d] to that of the QKV product: to dqkv
  // before the inverse rotation, ...
  Status BackwardCore(const ConstTensorView& dcontext, const TensorView& dqkv, Saved* core);
  // ... by way of codes, to what the product reads: what is returned, and state->dqkv where that
  // is read densely. Codes lie in scratch of the caller's ArenaScope.
  StatusOr<QuantSpec> BackwardCodes(const ConstTensorView& dcontext, State* state, Saved* saved);
  // The inverse rotation of dqkv, to the same.
  StatusOr<QuantSpec> RotateGradient(State* state, Saved* saved) const;
  Status CheckCache(const AttentionArgs& attention, int64_t batch, int64_t sequence,
                    const Saved* saved) const;

  // Children, and nodes of the saved state.
  static constexpr size_t kQkv = 0, kCore = 1, kProj = 2;

  MultiheadAttentionOptions options_;
  uint32_t core_attention_stream_ = 0;
};

}  // namespace te
