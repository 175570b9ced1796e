// SearchCandidates on a stream: cuBLASLt's algorithms of a product, cuDNN's plans of an attention.
#pragma once

#include <functional>
#include <vector>

#include "te_kernels/base/exec.h"
#include "te_kernels/cuda/candidate_search.h"

namespace te::cuda {

// Enqueues one run of candidate `index`. Any number of runs must leave the same result.
using CandidateRun = std::function<Status(int index)>;

// As SearchCandidates, by CUDA events. Blocks; must not be called while the stream is captured.
StatusOr<std::vector<float>> TimeCandidates(const Exec& exec, int count, double flops,
                                            StepClock clock, const CandidateRun& run);

}  // namespace te::cuda
