#include "bench/step_report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <tuple>

#include "fmt/format.h"
#include "models/json/json.h"

namespace te::bench {
namespace {

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

JsonValue Doubles(const std::vector<double>& values) {
  JsonValue::Array out;
  for (const double value : values) out.push_back(JsonValue::Double(value));
  return JsonValue::MakeArray(std::move(out));
}

}  // namespace

void PrintStepReport(const StepReport& report) {
  for (size_t i = 0; i < report.losses.size(); ++i) {
    if (i < report.warmup) {
      fmt::print("warm-up {}: loss {:.4f}\n", i + 1, report.losses[i]);
    } else {
      const size_t step = i - report.warmup;
      fmt::print("step {}: {:.1f} ms, loss {:.4f}\n", step + 1, report.seconds[step] * 1e3,
                 report.losses[i]);
    }
  }
  const double columns[] = {report.mean_seconds, Median(report.seconds),
                            *std::min_element(report.seconds.begin(), report.seconds.end())};
  const auto row = [&](const std::string& name, const auto& value) {
    fmt::print("{:<26}", name);
    for (const double seconds : columns) fmt::print("{:>12.1f}", value(seconds));
    fmt::print("\n");
  };
  fmt::print("\n{:<26}{:>12}{:>12}{:>12}\n", "", "mean", "median", "best");
  row("ms/step", [](double s) { return s * 1e3; });
  row("tokens/s", [&](double s) { return report.tokens / s; });
  row("model GFLOP/s", [&](double s) { return report.flops / s * 1e-9; });
  if (!report.gemm_rates.empty()) {
    const double gemm = Median(report.gemm_rates);
    row(report.gemm_name + " GFLOP/s", [&](double) { return gemm * 1e-9; });
    row("model / GEMM, percent", [&](double s) { return 100 * report.flops / s / gemm; });
  }
  fmt::print("peak memory {:.2f} GiB on the device, {:.2f} GiB of the process\n", report.peak_gib,
             report.host_peak_gib);
  const LearningCheck& check = report.check;
  if (check.losses.empty()) return;
  fmt::print("check: loss {:.4f} -> {:.4f} in {} steps; {} of {} tensors changed{}{}\n",
             check.losses.front(), check.losses.back(), check.losses.size(),
             check.tensors - static_cast<int64_t>(check.unchanged.size()), check.tensors,
             check.failure.empty() ? "" : ": FAILED: ", check.failure);
}

Status WriteStepReport(const StepReport& report, const std::string& path) {
  const double median = Median(report.seconds);
  JsonValue::Members settings;
  for (const auto& [name, value] : report.settings)
    settings.push_back({name, JsonValue::String(value)});
  JsonValue::Members out = {
      {"settings", JsonValue::MakeObject(std::move(settings))},
      {"milliseconds", JsonValue::Double(report.mean_seconds * 1e3)},
      {"median_milliseconds", JsonValue::Double(median * 1e3)},
      {"step_milliseconds",
       [&] {
         std::vector<double> each;
         for (const double seconds : report.seconds) each.push_back(seconds * 1e3);
         return Doubles(each);
       }()},
      {"tokens_per_second", JsonValue::Double(report.tokens / report.mean_seconds)},
      {"model_tflops_per_second", JsonValue::Double(report.flops / report.mean_seconds * 1e-12)},
      {"peak_gib", JsonValue::Double(report.peak_gib)},
      {"losses", Doubles(report.losses)}};
  if (!report.gemm_rates.empty()) {
    out.push_back({"gemm", JsonValue::String(report.gemm_name)});
    out.push_back({"gemm_tflops_per_second", JsonValue::Double(Median(report.gemm_rates) * 1e-12)});
  }
  if (!report.check.losses.empty()) {
    out.push_back({"check_losses", Doubles(report.check.losses)});
    out.push_back({"check_tensors", JsonValue::Integer(report.check.tensors)});
    out.push_back({"check_failure", JsonValue::String(report.check.failure)});
  }
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJson(JsonValue::MakeObject(std::move(out))));
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return IoError("{}: cannot be written", path);
  const bool written = std::fputs((text + "\n").c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) return IoError("{}: cannot be written", path);
  return OkStatus();
}

void PrintProfile(const Profile& profile, double step_seconds, int steps) {
  std::vector<std::pair<std::string, OperationTime>> rows(profile.begin(), profile.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  fmt::print("\n{:<22}{:>10}{:>12}{:>9}{:>12}\n", "operation", "calls", "ms/step", "share",
             "GFLOP/s");
  double sum = 0;
  for (const auto& [name, time] : rows) {
    const double seconds = time.seconds / steps;
    sum += seconds;
    fmt::print("{:<22}{:>10}{:>12.2f}{:>8.1f}%", name, time.calls / steps, seconds * 1e3,
               100 * seconds / step_seconds);
    if (time.flops > 0) fmt::print("{:>12.1f}", time.flops / time.seconds * 1e-9);
    fmt::print("\n");
  }
  fmt::print("{:<22}{:>10}{:>12.2f}{:>8.1f}%\n", "between operations", "",
             (step_seconds - sum) * 1e3, 100 * (step_seconds - sum) / step_seconds);
}

void PrintKernels(const KernelLog& log) {
  if (log.records().empty()) {
    fmt::print("\noperations: no list (of the CUDA backend alone)\n");
    return;
  }
  using Key = std::tuple<std::string, std::string, std::string, std::string>;
  std::map<Key, std::pair<int64_t, int64_t>> sums;  // calls, bytes
  for (const KernelRecord& record : log.records()) {
    auto& [calls, bytes] =
        sums[{record.operation, record.orientation, record.kernel, Name(record.dtype)}];
    ++calls;
    bytes += record.bytes;
  }
  std::vector<std::pair<Key, std::pair<int64_t, int64_t>>> rows(sums.begin(), sums.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.second > b.second.second; });
  fmt::print("\n{:<24}{:<8}{:<36}{:<10}{:>8}{:>12}\n", "operation", "", "kernel", "dtype", "calls",
             "MB");
  for (const auto& [key, sum] : rows) {
    const auto& [operation, orientation, kernel, dtype] = key;
    fmt::print("{:<24}{:<8}{:<36}{:<10}{:>8}{:>12.1f}\n", operation, orientation, kernel, dtype,
               sum.first, static_cast<double>(sum.second) * 1e-6);
  }
}

}  // namespace te::bench
