// Which samples a batch consists of: a pure function of its number, so that a run can start
// anywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "te_kernels/base/status.h"

namespace te {

struct SamplerOptions {
  int64_t samples = 0;  // in the data set
  int64_t batch_size = 0;
  // true: the samples that do not fill a batch are left out of each epoch (Hugging Face's
  // drop_last). false: epochs follow one another without a seam.
  bool drop_last = true;
  bool shuffle = false;  // a new order every epoch, from seed and epoch alone
  uint64_t seed = 0;
};

// Thread-compatible: keeps the order of the last epoch asked for.
class BatchSampler {
 public:
  // kInvalidArgument: no samples, batch_size < 1, fewer samples than a batch with drop_last.
  static StatusOr<BatchSampler> Create(const SamplerOptions& options);
  // Sample numbers of batch `index` >= 0.
  std::vector<int64_t> Batch(int64_t index);

 private:
  explicit BatchSampler(const SamplerOptions& options) : options_(options) {}
  int64_t SampleAt(int64_t epoch, int64_t position);

  SamplerOptions options_;
  std::vector<int64_t> order_;  // of epoch_
  int64_t epoch_ = -1;
};

}  // namespace te
