// What bench/step measured, as a table and as JSON.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/learning_check.h"
#include "bench/timed_device.h"
#include "te_kernels/base/kernel_log.h"

namespace te::bench {

struct StepReport {
  // What ran: names and values of options, machine and libraries, in the order shown.
  std::vector<std::pair<std::string, std::string>> settings;
  double flops = 0;            // of the model, a step
  double tokens = 0;           // a step
  std::vector<double> losses;  // warm-up steps first
  size_t warmup = 0;
  std::vector<double> seconds;  // of each timed step
  double mean_seconds = 0;      // from the first timed step's begin to the last one's end
  std::string gemm_name;
  std::vector<double> gemm_rates;  // FLOP/s; empty: no yardstick
  double peak_gib = 0;             // of the device's memory
  double host_peak_gib = 0;
  LearningCheck check;  // no losses: not asked for
};

void PrintStepReport(const StepReport& report);
// Replaces `path`.
Status WriteStepReport(const StepReport& report, const std::string& path);

// Where the time went: by operation, longest first.
void PrintProfile(const Profile& profile, double step_seconds, int steps);
// What one step executed, equal entries together, most bytes first.
void PrintKernels(const KernelLog& log);

}  // namespace te::bench
