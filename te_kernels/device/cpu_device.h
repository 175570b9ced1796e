#pragma once

#include <memory>

#include "te_kernels/device/device.h"

namespace te {

// This process's host memory and processors.
std::unique_ptr<Device> NewCpuDevice();

}  // namespace te
