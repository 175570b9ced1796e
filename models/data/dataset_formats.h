// The readers behind OpenDataset.
#pragma once

#include <memory>
#include <string>

#include "models/data/dataset.h"

namespace te {

StatusOr<std::unique_ptr<Dataset>> OpenTextDataset(const std::string& path, DataFormat format,
                                                   const DatasetOptions& options);
StatusOr<std::unique_ptr<Dataset>> OpenTokenDataset(const std::string& path,
                                                    const DatasetOptions& options);

}  // namespace te
