// softmax(q k^T / sqrt(d)) v with masks, windows, grouped queries and dropout. Equations:
// te_kernels/attention.
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/float8_attention.h"
#include "te_core/layers/layer.h"
#include "te_kernels/attention/attention.h"

namespace te {

enum class AttentionFormat : int32_t { kBshd = 0, kSbhd = 1 };

const char* Name(AttentionFormat format);
// "bshd" or "sbhd"; kInvalidArgument lists the names.
StatusOr<AttentionFormat> ParseAttentionFormat(std::string_view name);

struct WindowSize {  // -1: infinite
  int64_t left = -1;
  int64_t right = -1;
};

struct DotProductAttentionOptions {
  int64_t num_attention_heads = 0;
  int64_t kv_channels = 0;     // head_dim
  int64_t num_gqa_groups = 0;  // 0: num_attention_heads
  float attention_dropout = 0;
  AttentionFormat qkv_format = AttentionFormat::kSbhd;
  AttentionMaskType attn_mask_type = AttentionMaskType::kCausal;
  WindowSize window_size;
  float softmax_scale = 0;  // 0: 1 / sqrt(kv_channels)
};

// input (the query), output [B, Sq, n, d], key, value [B, Skv, g, d] in bshd; [S, B, ...] in sbhd;
// any strides with an inner one of 1. dinput, dkey, dvalue: all three or none. No parameters.
// args.attention: masks alone (rotation and caches are MultiheadAttention's). With a padding type,
// no padding mask means that nothing is padding; a mask that the type does not use is refused.
//
// A recipe with fp8_dpa quantizes the products of passes that a backward pass follows, in scopes of
// training (its backward pass then reads codes; else query, key and value must stay unchanged until
// then); its limits (attention_fp8.h: on a GPU head_dim 128; anywhere no window, no dropout, no
// bottom-right or arbitrary mask) are errors that name it. Inference, and with it every pass with a
// key-value cache, computes in the tensors' own dtype.
//
// A pass that quantizes may also stand between neighbours that write and read codes themselves
// (MultiheadAttention's rotation and proj), without casts around it but doutput's. WantedInput has
// memory for query, key and value, side by side: [tokens, (n + 2 g) d] with the scale. Forward then
// gets them as args.input.codes and leaves the output's codes [tokens, n d]; BackwardInput takes a
// dense doutput [batch, sequence, n, d], any strides with an inner one of 1, and leaves the codes
// of [dquery | dkey | dvalue].
class DotProductAttention : public Layer {
 public:
  static StatusOr<std::unique_ptr<DotProductAttention>> Create(
      Context* context, const DotProductAttentionOptions& options, std::string name);

  Capabilities capabilities() const override;
  StatusOr<QuantSpec> WantedInput(const TokenLayout& layout, Saved* saved) override;
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  uint32_t dropout_stream() const { return dropout_stream_; }
  const DotProductAttentionOptions& options() const { return options_; }

 private:
  struct State;
  using Layer::Layer;

  Status ForwardCodes(const ForwardArgs& args, Saved* saved);
  Status BackwardCodes(const BackwardArgs& args, Saved* saved);
  Status CheckFloat8Pass(const GemmPass& pass) const;
  StatusOr<AttentionMask> MaskOf(const AttentionArgs& masks, int64_t keys) const;

  DotProductAttentionOptions options_;
  Float8Attention float8_;
  uint32_t dropout_stream_ = 0;
};

}  // namespace te
