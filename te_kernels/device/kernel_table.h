// The operations of one device, bound once when the device is made. Nothing above te_kernels asks
// "which device?".
#pragma once

#include "te_kernels/activation/activation.h"
#include "te_kernels/adamw/adamw.h"
#include "te_kernels/add/add.h"
#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_fp8.h"
#include "te_kernels/batched_gemm/batched_gemm.h"
#include "te_kernels/bias_gradient/bias_gradient.h"
#include "te_kernels/cast/cast.h"
#include "te_kernels/count_labels/count_labels.h"
#include "te_kernels/count_nonfinite/count_nonfinite.h"
#include "te_kernels/cross_entropy/cross_entropy.h"
#include "te_kernels/delayed_scaling/delayed_scaling.h"
#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/dropout/dropout.h"
#include "te_kernels/embedding/embedding.h"
#include "te_kernels/gemm/gemm.h"
#include "te_kernels/layer_norm/layer_norm.h"
#include "te_kernels/multiply/multiply.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/random_fill/random_fill.h"
#include "te_kernels/repeat_kv/repeat_kv.h"
#include "te_kernels/rms_norm/rms_norm.h"
#include "te_kernels/rope/rope.h"
#include "te_kernels/softmax/softmax.h"
#include "te_kernels/step_update/step_update.h"
#include "te_kernels/sum/sum.h"
#include "te_kernels/transpose/transpose.h"

namespace te {

template <typename Args>
using Operation = Status (*)(const Exec&, const Args&);

struct KernelTable {
  Operation<GemmArgs> gemm;
  Operation<BatchedGemmArgs> batched_gemm;
  Operation<RmsNormForwardArgs> rms_norm_forward;
  Operation<RmsNormBackwardArgs> rms_norm_backward;
  Operation<LayerNormForwardArgs> layer_norm_forward;
  Operation<LayerNormBackwardArgs> layer_norm_backward;
  Operation<ActivationForwardArgs> activation_forward;
  Operation<ActivationBackwardArgs> activation_backward;
  Operation<RopeArgs> rope;
  Operation<AttentionForwardArgs> attention_forward;
  Operation<AttentionBackwardArgs> attention_backward;
  Operation<AttentionFp8ForwardArgs> attention_fp8_forward;
  Operation<AttentionFp8BackwardArgs> attention_fp8_backward;
  Operation<SoftmaxForwardArgs> softmax_forward;
  Operation<SoftmaxBackwardArgs> softmax_backward;
  Operation<CrossEntropyArgs> cross_entropy;
  Operation<CountLabelsArgs> count_labels;
  Operation<CountNonfiniteArgs> count_nonfinite;
  Operation<EmbeddingForwardArgs> embedding_forward;
  Operation<EmbeddingBackwardArgs> embedding_backward;
  Operation<AddArgs> add;
  Operation<MultiplyArgs> multiply;
  Operation<CastArgs> cast;
  Operation<QuantizeArgs> quantize;
  Operation<DequantizeArgs> dequantize;
  Operation<TransposeArgs> transpose;
  Operation<DelayedScalingArgs> delayed_scaling;
  Operation<DropoutForwardArgs> dropout_forward;
  Operation<DropoutBackwardArgs> dropout_backward;
  Operation<BiasGradientArgs> bias_gradient;
  Operation<SumArgs> sum;
  Operation<StepUpdateArgs> step_update;
  Operation<AdamWArgs> adamw;
  Operation<RandomFillArgs> random_fill;
  Operation<RepeatKvForwardArgs> repeat_kv_forward;
  Operation<RepeatKvBackwardArgs> repeat_kv_backward;
};

}  // namespace te
