// Attention through cuDNN's fused engines.
#pragma once

#include <string>

#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/sdpa_nodes.h"

namespace te {

// Runs the operation when cuDNN has an engine for it and says so: a deterministic one, but for the
// backward pass with Exec::allow_nondeterministic, which takes a deterministic one where there is
// no other. False, with nothing done, otherwise: float32, dropout (its random numbers are not
// ours), arbitrary masks, padding that may stand on the left, head dimensions that are no multiple
// of 8 or above 256.
StatusOr<bool> AttentionForwardCudnn(const Exec& exec, const AttentionForwardArgs& args);
StatusOr<bool> AttentionBackwardCudnn(const Exec& exec, const AttentionBackwardArgs& args);

// What these and FP8 attention are made of.
//
// Runs a graph, made and tuned at the first call; `lengths` is SequenceLengthsOf, `scalars` what an
// FP8 graph has besides. False: cuDNN has no engine for it, and why.
StatusOr<bool> RunSdpa(const Exec& exec, const SdpaProblem& problem, const ConstTensorView& lengths,
                       const SdpaPointers& scalars = {}, std::string* refusal = nullptr);
// Query and key lengths of right-padded sequences, int32 [2, B] in the caller's ArenaScope;
// undefined without padding.
StatusOr<ConstTensorView> SequenceLengthsOf(const Exec& exec, const AttentionMask& mask,
                                            const ConstTensorView& q);

}  // namespace te
