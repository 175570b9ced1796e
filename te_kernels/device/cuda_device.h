#pragma once

#include <memory>

#include "te_kernels/device/device.h"

namespace te {

// Card `ordinal` of those that CUDA shows this process. kUnsupported, with CUDA's reason, when
// there is none or the driver is too old.
StatusOr<std::unique_ptr<Device>> NewCudaDevice(int ordinal);

}  // namespace te
