// A device that times each operation of another one: where a step's time goes. It waits for each
// operation, so a GPU's step takes longer than without.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "te_kernels/device/device.h"

namespace te::bench {

struct OperationTime {
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // of matrix products; 0 elsewhere
};

// By operation; GEMMs by kind ("gemm fprop").
using Profile = std::map<std::string, OperationTime>;

// Forwards everything to `device`. The table's entries are plain functions, so the times of all
// timed devices of the process are kept in one place, CurrentProfile(): make one device at a time.
// Not thread-safe.
std::unique_ptr<Device> MakeTimedDevice(std::unique_ptr<Device> device);

// What was timed since the last ResetProfile().
const Profile& CurrentProfile();
void ResetProfile();

}  // namespace te::bench
