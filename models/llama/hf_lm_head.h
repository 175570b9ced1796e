// lm_head and loss as Hugging Face computes them: whole logits, upcast to float32, cross entropy
// over them (transformers, loss/loss_utils.py, ForCausalLMLoss). The baseline for te_core's chunked
// LinearCrossEntropy; it runs over the same weight.
#pragma once

#include "te_core/layers/linear_cross_entropy.h"

namespace te {

// As LinearCrossEntropy::Run, for labels that are already shifted: loss, scalars, dinput and the
// weight's gradient in one call; what is asked for in `args` is written. `weight` [V, H] is never
// reported as ready: the caller knows when a tied one is.
Status RunLlamaHfHead(Context* context, Parameter* weight, const LinearCrossEntropyArgs& args);

}  // namespace te
