// Attention with its products in FP8 (Transformer Engine's fp8_dpa): the casts around
// te_kernels/attention/attention_fp8.h where its neighbours do not make them, and the one place
// where attention meets the recipe. Delayed scaling: q, k and v share a scale, dq, dk and dv do.
#pragma once

#include <string>

#include "te_core/context.h"
#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_fp8.h"

namespace te {

// Of [q | k | v] in one matrix, a row a token: [batch sequence, (heads + 2 groups) head_dim].
struct PackedHeads {
  int64_t batch = 0, sequence = 0, heads = 0, groups = 0, head_dim = 0;
  bool sequence_first = false;  // the rows' order

  int64_t tokens() const { return batch * sequence; }
  int64_t columns() const { return (heads + 2 * groups) * head_dim; }
};

// What a backward pass reads, instead of q, k, v and out.
struct Float8AttentionState {
  Float8Input q, k, v, out;
  ConstTensorView lse;
};

// Thread-compatible; the context must outlive it. Tensors are those of AttentionForwardArgs and
// AttentionBackwardArgs, without dropout; their FP8 copies are made and read inside.
class Float8Attention {
 public:
  Float8Attention() = default;
  ~Float8Attention();
  Float8Attention(const Float8Attention&) = delete;
  Float8Attention& operator=(const Float8Attention&) = delete;

  // `name`: the module's full name, which rules by name and saved states go by.
  void Init(Context* context, std::string name);

  // The running scope's word on training with a backward pass to follow.
  GemmPass NewPass() const { return context_->NewAttentionPass(name_, true); }

  // Of a pass that quantizes. `arena` keeps what `state` points to. args.random is not read.
  Status Forward(const GemmPass& pass, const AttentionForwardArgs& args, Arena* arena,
                 Float8AttentionState* state);
  // args.q, k, v, out and lse are not read: `state` has them.
  Status Backward(const GemmPass& pass, const AttentionBackwardArgs& args,
                  const Float8AttentionState& state);

  // ----- The same where the neighbours of attention read and write codes themselves: those of q, k
  // and v come in one matrix, and so do those of their gradients; bits are those of the above.

  // Where the codes of q, k and v go, in `arena`.
  StatusOr<QuantSpec> NewPacked(const GemmPass& pass, const PackedHeads& heads, Arena* arena);
  // `qkv`: of NewPacked, written. args.q, k, v and out are not read. Returns the codes of the
  // output: [tokens, heads * head_dim], in `arena`.
  StatusOr<QuantSpec> ForwardPacked(const GemmPass& pass, const QuantSpec& qkv,
                                    const PackedHeads& heads, const AttentionForwardArgs& args,
                                    Arena* arena, Float8AttentionState* state);
  // args.dout and what is no tensor are read. Returns the codes of [dq | dk | dv], in `arena`.
  StatusOr<QuantSpec> BackwardPacked(const GemmPass& pass, const PackedHeads& heads,
                                     const AttentionBackwardArgs& args,
                                     const Float8AttentionState& state, Arena* arena);

  // Of a calibrating pass, after the operation of the same arguments in its own dtype: the amaxes
  // of its tensors enter the histories. Those of what only exists inside (the softmax, and the
  // gradient of the scores) are measured by the FP8 operation on copies with scales of their own.
  // Nothing in other passes.
  Status CalibrateForward(const GemmPass& pass, const AttentionForwardArgs& args);
  Status CalibrateBackward(const GemmPass& pass, const AttentionBackwardArgs& args);

  // To be called when the module's backward pass is over.
  Status EndBackward(const GemmPass& pass);

 private:
  struct Scaling {
    QuantFormat format = QuantFormat::kNone;
    const float* scale = nullptr;
    float* amax = nullptr;
  };

  struct ForwardScaling {
    Scaling qkv, s, o;
  };
  struct BackwardScaling {
    Scaling s, dout, dp, dqkv;
  };
  struct Gradients {
    Float8Output dq, dk, dv;
  };

  StatusOr<Scaling> ScalingOf(AttentionTensor tensor, const GemmPass& pass);
  StatusOr<ForwardScaling> ForwardScalingOf(const GemmPass& pass);
  StatusOr<BackwardScaling> BackwardScalingOf(const GemmPass& pass);
  // The operations on what state and outputs hold; args.mask, softmax_scale and lse besides.
  Status RunForward(const ForwardScaling& scaling, const AttentionForwardArgs& args,
                    const Float8Output& out, Float8AttentionState* state);
  Status RunBackward(const BackwardScaling& scaling, const AttentionBackwardArgs& args,
                     const Float8Input& dout, const Float8AttentionState& state,
                     const Gradients& gradients);
  // Memory for codes with the scale's numbers.
  StatusOr<QuantSpec> NewScaledCodes(const Scaling& scaling, int64_t rows, int64_t columns,
                                     Arena* arena) const;
  // A float32 at a 16-byte boundary.
  StatusOr<float*> NewScalar(Arena* arena) const;
  // Codes of x in `arena`; with its own amax's scale if `scaling` is null.
  StatusOr<Float8Input> Quantize(const ConstTensorView& x, QuantFormat format,
                                 const Scaling* scaling, float* scale_inv, Arena* arena) const;
  // In scratch of the caller's ArenaScope.
  StatusOr<Float8Input> QuantizeDout(const ConstTensorView& dout, const Scaling& scaling) const;
  Status AddAmax(const ConstTensorView& x, const Scaling& scaling) const;
  StatusOr<Float8Output> NewOutput(const TensorView& y, const Scaling& scaling, float* scale_inv,
                                   Arena* arena) const;
  Status Dequantize(const Float8Output& codes, QuantFormat format, const TensorView& y) const;
  // Names the module and the option.
  Status Explained(const Status& status) const;

  Context* context_ = nullptr;
  std::string name_;
  ScalingSlot slots_[kAttentionTensors];
};

}  // namespace te
