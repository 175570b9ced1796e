// Attention with its products in FP8 (Transformer Engine's fp8_dpa): the casts around
// te_kernels/attention/attention_fp8.h, and the one place where attention meets the recipe. Delayed
// scaling: q, k and v share a scale, dq, dk and dv do.
#pragma once

#include <string>

#include "te_core/context.h"
#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_fp8.h"

namespace te {

// What a backward pass reads, instead of q, k, v and out.
struct Float8AttentionState {
  Float8Input q, k, v, out;
  TensorView lse;
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

  StatusOr<Scaling> ScalingOf(AttentionTensor tensor, const GemmPass& pass);
  // A float32 at a 16-byte boundary.
  StatusOr<float*> NewScalar(Arena* arena) const;
  // Codes of x in `arena`; with its own amax's scale if `scaling` is null.
  StatusOr<Float8Input> Quantize(const ConstTensorView& x, QuantFormat format,
                                 const Scaling* scaling, float* scale_inv, Arena* arena) const;
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
