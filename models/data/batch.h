// From samples of different lengths to one rectangular batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace te {

// Of a label: this position is not counted in the loss.
inline constexpr int32_t kIgnoredLabel = -100;

// One training text in token ids. All three have one length; labels are unshifted, as Hugging Face
// takes them.
struct Sample {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> labels;
  std::vector<uint8_t> attention_mask;  // 1 = keep, 0 = padding
};

// Row-major [batch, sequence] each.
struct Batch {
  int64_t batch = 0;
  int64_t sequence = 0;
  std::vector<int32_t> input_ids;
  std::vector<int32_t> labels;
  std::vector<uint8_t> attention_mask;

  // Positions that are no padding.
  int64_t AttendedTokens() const;
};

struct CollateOptions {
  int32_t pad_id = 0;
  int64_t pad_to_multiple_of = 16;
};

// Pads on the right to the longest sample, rounded up to a multiple of pad_to_multiple_of: ids
// pad_id, labels kIgnoredLabel, mask 0, as transformers' DataCollatorForLanguageModeling(mlm=False,
// pad_to_multiple_of=16) does.
Batch Collate(std::span<const Sample> samples, const CollateOptions& options);

}  // namespace te
