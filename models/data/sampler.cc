#include "models/data/sampler.h"

#include <numeric>

#include "te_kernels/base/philox.h"

namespace te {
namespace {

// The stream that the order of samples draws from; those of layers and tensors count up from 1.
constexpr uint32_t kShuffleStream = 0xffffffffu;

}  // namespace

StatusOr<BatchSampler> BatchSampler::Create(const SamplerOptions& options) {
  if (options.batch_size < 1) {
    return InvalidArgument("batch size is {}; expected 1 or more", options.batch_size);
  }
  if (options.samples < 1) return InvalidArgument("the data has no samples");
  if (options.drop_last && options.samples < options.batch_size) {
    return InvalidArgument(
        "the data has {} sample{}, fewer than a batch of {}; use --batch-size {} or less",
        options.samples, options.samples == 1 ? "" : "s", options.batch_size, options.samples);
  }
  return BatchSampler(options);
}

std::vector<int64_t> BatchSampler::Batch(int64_t index) {
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(options_.batch_size));
  const int64_t per_epoch = options_.drop_last
                                ? options_.samples / options_.batch_size * options_.batch_size
                                : options_.samples;
  for (int64_t i = 0; i < options_.batch_size; ++i) {
    const int64_t position = index * options_.batch_size + i;
    out.push_back(SampleAt(position / per_epoch, position % per_epoch));
  }
  return out;
}

int64_t BatchSampler::SampleAt(int64_t epoch, int64_t position) {
  if (!options_.shuffle) return position;
  if (epoch != epoch_) {
    order_.resize(static_cast<size_t>(options_.samples));
    std::iota(order_.begin(), order_.end(), 0);
    const RandomState random{
        .seed = options_.seed, .stream = kShuffleStream, .offset = static_cast<uint64_t>(epoch)};
    // Fisher and Yates; 64 random bits a draw keep the bias of the remainder below 2^-32 for any
    // data set.
    for (uint64_t i = order_.size() - 1; i > 0; --i) {
      const auto block = Philox::Block(random, i);
      const uint64_t draw = (uint64_t{block[0]} << 32) | block[1];
      std::swap(order_[i], order_[draw % (i + 1)]);
    }
    epoch_ = epoch;
  }
  return order_[static_cast<size_t>(position)];
}

}  // namespace te
