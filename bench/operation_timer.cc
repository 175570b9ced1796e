#include "bench/operation_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te::bench {
namespace {

// Four times an H200's L2 cache of 60 MB.
constexpr int64_t kRotatedBytes = int64_t{240} << 20;
constexpr int kMaxRotations = 32;
constexpr double kSecondsEach = 0.03;
// For some 30 ms after gigabytes have been freed, as by the row before, everything takes 10%
// longer.
constexpr double kWarmUpSeconds = 0.05;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

StatusOr<OperationTimer> OperationTimer::Make(Context* context) {
  if (!context->device().can_record(context->exec())) {
    return Unsupported("operation timer: device {} cannot record work; expected cuda",
                       context->device().name());
  }
  OperationTimer out;
  out.context_ = context;
  TE_ASSIGN_OR_RETURN(out.timer_, MakeStreamTimer(context->device()));
  return out;
}

Status OperationTimer::StayHot() {
  constexpr int64_t kSize = 8192;
  constexpr int kProducts = 20;  // 1.1 TFLOP each
  constexpr int kWarmUps = 60;   // two seconds
  TE_ASSIGN_OR_RETURN(heated_, Random(DType::kBFloat16, {kSize, kSize}, 3));
  GemmArgs args;
  args.a = heated_[0].view();
  args.b = heated_[1].view();
  args.d = heated_[2].view();
  const Exec& exec = context_->exec();
  Device& device = context_->device();
  TE_RETURN_IF_ERROR(context_->kernels().gemm(exec, args));
  TE_RETURN_IF_ERROR(context_->Synchronize());
  TE_RETURN_IF_ERROR(device.BeginRecording(exec));
  Status status;
  for (int i = 0; i < kProducts && status.ok(); ++i) status = context_->kernels().gemm(exec, args);
  StatusOr<std::unique_ptr<RecordedWork>> work = device.EndRecording(exec);
  TE_RETURN_IF_ERROR(status);
  TE_ASSIGN_OR_RETURN(heater_, std::move(work));
  for (int i = 0; i < kWarmUps; ++i) TE_RETURN_IF_ERROR(heater_->Launch(exec));
  return context_->Synchronize();
}

int OperationTimer::Rotations(int64_t bytes) {
  const int64_t count = kRotatedBytes / std::max<int64_t>(bytes, 1) + 1;
  return static_cast<int>(std::clamp<int64_t>(count, 2, kMaxRotations));
}

StatusOr<OperationTimer::Recorded> OperationTimer::Record(const std::vector<Call>& calls,
                                                          int rotations) {
  const Exec& exec = context_->exec();
  Device& device = context_->device();
  Recorded recorded;
  for (const Call& call : calls) {
    // As it is first: it chooses algorithms and sizes scratch memory, which recording may not.
    for (int i = 0; i < rotations; ++i) TE_RETURN_IF_ERROR(call(i));
    TE_RETURN_IF_ERROR(context_->Synchronize());
    TE_RETURN_IF_ERROR(device.BeginRecording(exec));
    Status status;
    for (int i = 0; i < rotations && status.ok(); ++i) status = call(i);
    StatusOr<std::unique_ptr<RecordedWork>> work = device.EndRecording(exec);
    TE_RETURN_IF_ERROR(status);
    TE_RETURN_IF_ERROR(work.status());
    recorded.push_back(std::move(work).value());
  }
  return recorded;
}

StatusOr<std::vector<double>> OperationTimer::Seconds(const std::vector<Call>& calls,
                                                      int rotations) {
  const Exec& exec = context_->exec();
  TE_ASSIGN_OR_RETURN(const Recorded recorded, Record(calls, rotations));
  const auto take_turns = [&](int turns) -> StatusOr<StreamTimer::Times> {
    for (int turn = 0; turn < turns; ++turn) {
      for (const std::unique_ptr<RecordedWork>& work : recorded) {
        if (heater_ != nullptr) TE_RETURN_IF_ERROR(heater_->Launch(exec));
        TE_RETURN_IF_ERROR(timer_->Begin(exec));
        TE_RETURN_IF_ERROR(work->Launch(exec));
        TE_RETURN_IF_ERROR(timer_->End(exec));
      }
    }
    return timer_->Read();
  };
  TE_ASSIGN_OR_RETURN(const StreamTimer::Times trial, take_turns(3));
  const double slowest = *std::max_element(trial.each.begin(), trial.each.end());
  const auto turns_in = [slowest, most = heater_ == nullptr ? 500.0 : 11.0](double seconds) {
    return static_cast<int>(std::clamp(std::ceil(seconds / slowest), 5.0, most));
  };
  if (heater_ == nullptr) TE_RETURN_IF_ERROR(take_turns(turns_in(kWarmUpSeconds)).status());
  TE_ASSIGN_OR_RETURN(const StreamTimer::Times times, take_turns(turns_in(kSecondsEach)));
  std::vector<double> out;
  for (size_t which = 0; which < recorded.size(); ++which) {
    std::vector<double> own;
    for (size_t i = which; i < times.each.size(); i += recorded.size())
      own.push_back(times.each[i]);
    out.push_back(Median(own) / rotations);
  }
  return out;
}

StatusOr<double> OperationTimer::Seconds(const Call& call, int rotations) {
  TE_ASSIGN_OR_RETURN(const std::vector<double> seconds, Seconds(std::vector{call}, rotations));
  return seconds.front();
}

StatusOr<std::vector<double>> OperationTimer::SustainedSeconds(const std::vector<Call>& calls,
                                                               int rotations) {
  constexpr double kSettleSeconds = 0.07, kWindowSeconds = 0.03;
  constexpr int kTurns = 2;
  const Exec& exec = context_->exec();
  TE_ASSIGN_OR_RETURN(const Recorded recorded, Record(calls, rotations));
  std::vector<double> out(recorded.size(), std::numeric_limits<double>::infinity());
  // Of a window of `launches`: seconds of one.
  const auto window = [&](size_t which, int launches) -> StatusOr<double> {
    TE_RETURN_IF_ERROR(timer_->Begin(exec));
    for (int i = 0; i < launches; ++i) TE_RETURN_IF_ERROR(recorded[which]->Launch(exec));
    TE_RETURN_IF_ERROR(timer_->End(exec));
    TE_ASSIGN_OR_RETURN(const StreamTimer::Times times, timer_->Read());
    return times.whole / launches;
  };
  for (int turn = 0; turn < kTurns; ++turn) {
    for (size_t which = 0; which < recorded.size(); ++which) {
      TE_ASSIGN_OR_RETURN(const double one, window(which, 1));
      const auto launches = [one](double seconds) {
        return static_cast<int>(std::ceil(seconds / one));
      };
      TE_RETURN_IF_ERROR(window(which, launches(kSettleSeconds)).status());
      TE_ASSIGN_OR_RETURN(const double seconds, window(which, launches(kWindowSeconds)));
      out[which] = std::min(out[which], seconds / rotations);
    }
  }
  return out;
}

StatusOr<std::vector<Tensor>> OperationTimer::Random(DType dtype, const Shape& shape, int count) {
  std::vector<Tensor> out;
  for (int i = 0; i < count; ++i) {
    TE_ASSIGN_OR_RETURN(Tensor tensor, context_->NewTensor(dtype, shape));
    TE_RETURN_IF_ERROR(context_->kernels().random_fill(
        context_->exec(),
        {.random = context_->Random(context_->NewRandomStream()), .out = tensor.view()}));
    out.push_back(std::move(tensor));
  }
  return out;
}

StatusOr<Tensor> OperationTimer::Integers(int64_t count, int64_t end) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  uint64_t state = 1;
  for (int32_t& value : values) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX generator
    value = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(end));
  }
  TE_ASSIGN_OR_RETURN(Tensor out, context_->NewTensor(DType::kInt32, {count}));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(values.data(), out.view()));
  return out;
}

StatusOr<double> OperationTimer::CopyBandwidth(int64_t bytes) {
  constexpr int kTurns = 12;
  const int rotations = Rotations(bytes);
  const Shape shape = {
      std::max<int64_t>(bytes / 2 / static_cast<int64_t>(SizeOf(DType::kBFloat16)), 1)};
  TE_ASSIGN_OR_RETURN(const std::vector<Tensor> from, Random(DType::kBFloat16, shape, rotations));
  TE_ASSIGN_OR_RETURN(const std::vector<Tensor> to, Random(DType::kBFloat16, shape, rotations));
  const Exec& exec = context_->exec();
  // Not as recorded work: a graph's copies take another way through the card, at two thirds of the
  // speed.
  for (int turn = 0; turn < kTurns; ++turn) {
    if (heater_ != nullptr) TE_RETURN_IF_ERROR(heater_->Launch(exec));
    TE_RETURN_IF_ERROR(timer_->Begin(exec));
    for (size_t i = 0; i < from.size(); ++i) {
      TE_RETURN_IF_ERROR(cuda::ToStatus(
          cudaMemcpyAsync(to[i].view().data(), from[i].view().data(), from[i].view().bytes(),
                          cudaMemcpyDeviceToDevice, cuda::StreamOf(exec)),
          "cudaMemcpyAsync"));
    }
    TE_RETURN_IF_ERROR(timer_->End(exec));
  }
  TE_ASSIGN_OR_RETURN(const StreamTimer::Times times, timer_->Read());
  return 2.0 * static_cast<double>(from[0].view().bytes()) * rotations / Median(times.each);
}

}  // namespace te::bench
