#include "models/data/dataset.h"

#include <utility>

#include "models/data/dataset_formats.h"

namespace te {

StatusOr<std::unique_ptr<Dataset>> OpenDataset(DataInput input, DataFormat format,
                                               const DatasetOptions& options) {
  if (options.max_sequence_length < 1) {
    return InvalidArgument("maximum sequence length is {}; expected 1 or more",
                           options.max_sequence_length);
  }
  return format == DataFormat::kSafetensors ? OpenTokenDataset(std::move(input), options)
                                            : OpenTextDataset(std::move(input), format, options);
}

}  // namespace te
