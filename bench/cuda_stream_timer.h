#pragma once

#include "bench/stream_timer.h"

namespace te::bench {

// By CUDA events.
StatusOr<std::unique_ptr<StreamTimer>> NewCudaStreamTimer();
// The current card, its driver, and the libraries' versions.
StatusOr<std::vector<std::pair<std::string, std::string>>> DescribeCuda();

}  // namespace te::bench
