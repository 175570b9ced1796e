// The readers behind OpenDataset.
#pragma once

#include <memory>
#include <string>

#include "models/data/dataset.h"

namespace te {

StatusOr<std::unique_ptr<Dataset>> OpenTextDataset(DataInput input, DataFormat format,
                                                   const DatasetOptions& options);
StatusOr<std::unique_ptr<Dataset>> OpenTokenDataset(DataInput input, const DatasetOptions& options);

}  // namespace te
