#include <algorithm>
#include <utility>

#include "models/data/dataset_formats.h"
#include "models/data/token_tensors.h"

namespace te {
namespace {

class TokenDataset : public Dataset {
 public:
  TokenDataset(TokenTensors tensors, int64_t max_sequence_length, uint64_t input_bytes)
      : tensors_(std::move(tensors)),
        length_(std::min(tensors_.columns, max_sequence_length)),
        input_bytes_(input_bytes) {}

  int64_t size() const override { return tensors_.rows; }
  int64_t truncated() const override { return length_ < tensors_.columns ? tensors_.rows : 0; }
  int64_t longest() const override { return longest_; }
  uint64_t input_bytes() const override { return input_bytes_; }
  // Ids need no tokenizing.
  Status Prepare(std::span<const int64_t> indices) override {
    for (const int64_t index : indices) {
      int64_t end = length_;
      while (end > longest_ && !Keeps(index * tensors_.columns + end - 1)) --end;
      longest_ = std::max(longest_, end);
    }
    return OkStatus();
  }

  StatusOr<Sample> At(int64_t index) override {
    Sample sample;
    for (int64_t at = index * tensors_.columns; at < index * tensors_.columns + length_; ++at) {
      const size_t i = static_cast<size_t>(at);
      const bool keep = Keeps(at);
      sample.input_ids.push_back(tensors_.input_ids[i]);
      sample.attention_mask.push_back(keep ? 1 : 0);
      sample.labels.push_back(!tensors_.labels.empty() ? tensors_.labels[i]
                              : keep                   ? tensors_.input_ids[i]
                                                       : kIgnoredLabel);
    }
    return sample;
  }

 private:
  // Whether the element at this index is no padding.
  bool Keeps(int64_t at) const {
    return tensors_.attention_mask.empty() || tensors_.attention_mask[static_cast<size_t>(at)] != 0;
  }

  TokenTensors tensors_;
  int64_t length_;
  int64_t longest_ = 0;
  uint64_t input_bytes_;
};

}  // namespace

StatusOr<std::unique_ptr<Dataset>> OpenTokenDataset(DataInput input,
                                                    const DatasetOptions& options) {
  TE_ASSIGN_OR_RETURN(InputFile file, input.IntoFile());
  const uint64_t bytes = file.size();
  TE_ASSIGN_OR_RETURN(TokenTensors tensors, ReadTokenTensors(std::move(file), options.vocab_size));
  return std::unique_ptr<Dataset>(
      std::make_unique<TokenDataset>(std::move(tensors), options.max_sequence_length, bytes));
}

}  // namespace te
