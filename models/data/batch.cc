#include "models/data/batch.h"

#include <algorithm>

namespace te {

int64_t Batch::AttendedTokens() const {
  return std::count_if(attention_mask.begin(), attention_mask.end(),
                       [](uint8_t keep) { return keep != 0; });
}

Batch Collate(std::span<const Sample> samples, const CollateOptions& options) {
  size_t longest = 1;
  for (const Sample& sample : samples) longest = std::max(longest, sample.input_ids.size());
  const size_t multiple = static_cast<size_t>(std::max<int64_t>(1, options.pad_to_multiple_of));
  const size_t sequence = (longest + multiple - 1) / multiple * multiple;

  Batch batch;
  batch.batch = static_cast<int64_t>(samples.size());
  batch.sequence = static_cast<int64_t>(sequence);
  batch.input_ids.assign(samples.size() * sequence, options.pad_id);
  batch.labels.assign(samples.size() * sequence, kIgnoredLabel);
  batch.attention_mask.assign(samples.size() * sequence, 0);
  for (size_t row = 0; row < samples.size(); ++row) {
    const Sample& sample = samples[row];
    const size_t at = row * sequence;
    std::copy(sample.input_ids.begin(), sample.input_ids.end(), batch.input_ids.begin() + at);
    std::copy(sample.labels.begin(), sample.labels.end(), batch.labels.begin() + at);
    std::copy(sample.attention_mask.begin(), sample.attention_mask.end(),
              batch.attention_mask.begin() + at);
  }
  return batch;
}

}  // namespace te
