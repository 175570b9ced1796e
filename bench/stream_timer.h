// Times what a device executes: marks in its stream, read when all is done, so that the host waits
// nowhere in between. On the CPU, where calls are synchronous, a clock.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "te_kernels/device/device.h"

namespace te::bench {

class StreamTimer {
 public:
  struct Times {
    std::vector<double> each;  // seconds of each Begin to its End
    double whole = 0;          // from the first Begin to the last End
  };

  virtual ~StreamTimer() = default;
  virtual Status Begin(const Exec& exec) = 0;
  virtual Status End(const Exec& exec) = 0;
  // Waits for the last End; the next Begin starts anew.
  virtual StatusOr<Times> Read() = 0;
};

StatusOr<std::unique_ptr<StreamTimer>> MakeStreamTimer(const Device& device);

// What a result depends on besides this code: names and values (card, driver, libraries).
StatusOr<std::vector<std::pair<std::string, std::string>>> DescribeMachine(const Device& device);

}  // namespace te::bench
