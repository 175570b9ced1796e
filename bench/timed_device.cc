#include "bench/timed_device.h"

#include <chrono>
#include <utility>

namespace te::bench {
namespace {

Profile profile;
KernelTable real;
Device* waited_for = nullptr;  // after each operation; null where calls are synchronous

class Timer {
 public:
  explicit Timer(OperationTime* time) : time_(time), start_(std::chrono::steady_clock::now()) {}
  ~Timer() {
    ++time_->calls;
    time_->seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  OperationTime* time_;
  std::chrono::steady_clock::time_point start_;
};

template <typename Args>
std::string Key(const char* name, const Args&) {
  return name;
}
std::string Key(const char* name, const GemmArgs& args) {
  switch (args.kind) {
    case GemmKind::kFprop:
      return std::string(name) + " fprop";
    case GemmKind::kDgrad:
      return std::string(name) + " dgrad";
    case GemmKind::kWgrad:
      return std::string(name) + " wgrad";
  }
  return name;
}

template <typename Args>
double Flops(const Args&) {
  return 0;
}
// Every kind multiplies tokens, in_features and out_features: a and b hold two of them each.
double Flops(const GemmArgs& args) {
  const Shape& a = args.a.dense.shape();
  const Shape& d = args.d.shape();
  const int64_t inner = args.kind == GemmKind::kWgrad ? a[0] : a[1];
  return 2.0 * static_cast<double>(d[0]) * static_cast<double>(d[1]) * static_cast<double>(inner);
}

template <typename Args, Operation<Args> KernelTable::*kMember>
struct Timed {
  static inline const char* name = nullptr;

  static Status Run(const Exec& exec, const Args& args) {
    OperationTime& time = profile[Key(name, args)];
    time.flops += Flops(args);
    Timer timer(&time);
    TE_RETURN_IF_ERROR((real.*kMember)(exec, args));
    return waited_for == nullptr ? OkStatus() : waited_for->Synchronize(exec);
  }
};

class TimedDevice : public Device {
 public:
  explicit TimedDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {
    real = device_->kernels();
    table_ = real;
    waited_for = device_->host_accessible() ? nullptr : device_.get();
#define TE_TIME(ARGS, MEMBER)                        \
  Timed<ARGS, &KernelTable::MEMBER>::name = #MEMBER; \
  table_.MEMBER = Timed<ARGS, &KernelTable::MEMBER>::Run
    TE_TIME(GemmArgs, gemm);
    TE_TIME(BatchedGemmArgs, batched_gemm);
    TE_TIME(RmsNormForwardArgs, rms_norm_forward);
    TE_TIME(RmsNormBackwardArgs, rms_norm_backward);
    TE_TIME(LayerNormForwardArgs, layer_norm_forward);
    TE_TIME(LayerNormBackwardArgs, layer_norm_backward);
    TE_TIME(ActivationForwardArgs, activation_forward);
    TE_TIME(ActivationBackwardArgs, activation_backward);
    TE_TIME(RopeArgs, rope);
    TE_TIME(AttentionForwardArgs, attention_forward);
    TE_TIME(AttentionBackwardArgs, attention_backward);
    TE_TIME(AttentionFp8ForwardArgs, attention_fp8_forward);
    TE_TIME(AttentionFp8BackwardArgs, attention_fp8_backward);
    TE_TIME(SoftmaxForwardArgs, softmax_forward);
    TE_TIME(SoftmaxBackwardArgs, softmax_backward);
    TE_TIME(CrossEntropyArgs, cross_entropy);
    TE_TIME(CountLabelsArgs, count_labels);
    TE_TIME(CountNonfiniteArgs, count_nonfinite);
    TE_TIME(EmbeddingForwardArgs, embedding_forward);
    TE_TIME(EmbeddingBackwardArgs, embedding_backward);
    TE_TIME(AddArgs, add);
    TE_TIME(MultiplyArgs, multiply);
    TE_TIME(CastArgs, cast);
    TE_TIME(QuantizeArgs, quantize);
    TE_TIME(DequantizeArgs, dequantize);
    TE_TIME(TransposeArgs, transpose);
    TE_TIME(DelayedScalingArgs, delayed_scaling);
    TE_TIME(DropoutForwardArgs, dropout_forward);
    TE_TIME(DropoutBackwardArgs, dropout_backward);
    TE_TIME(BiasGradientArgs, bias_gradient);
    TE_TIME(SumArgs, sum);
    TE_TIME(StepUpdateArgs, step_update);
    TE_TIME(AdamWArgs, adamw);
    TE_TIME(RandomFillArgs, random_fill);
    TE_TIME(RepeatKvForwardArgs, repeat_kv_forward);
    TE_TIME(RepeatKvBackwardArgs, repeat_kv_backward);
#undef TE_TIME
  }

  const char* name() const override { return device_->name(); }
  const KernelTable& kernels() const override { return table_; }
  bool host_accessible() const override { return device_->host_accessible(); }
  int default_threads() const override { return device_->default_threads(); }
  StatusOr<void*> NewStream() override { return device_->NewStream(); }
  void FreeStream(void* stream) override { device_->FreeStream(stream); }
  // One operation at a time is timed: there is no queue beside the first.
  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    return device_->NewLibraryState();
  }
  Status CopyToHost(const Exec& exec, const void* device, void* host, size_t bytes) override {
    Timer timer(&profile["copy to host"]);
    return device_->CopyToHost(exec, device, host, bytes);
  }
  Status CopyFromHost(const Exec& exec, const void* host, void* device, size_t bytes) override {
    Timer timer(&profile["copy from host"]);
    return device_->CopyFromHost(exec, host, device, bytes);
  }
  Status Zero(const Exec& exec, void* device, size_t bytes) override {
    Timer timer(&profile["zero"]);
    return device_->Zero(exec, device, bytes);
  }
  Status Synchronize(const Exec& exec) override { return device_->Synchronize(exec); }
  StatusOr<std::string> ChoicesKey(const Exec& exec) override { return device_->ChoicesKey(exec); }
  StatusOr<std::string> TunedChoices(const Exec& exec, WhichChoices which) override {
    return device_->TunedChoices(exec, which);
  }
  StatusOr<bool> PinChoices(const Exec& exec, const std::string& text, PinAs as) override {
    return device_->PinChoices(exec, text, as);
  }
  SearchTotals Searches(const Exec& exec) override { return device_->Searches(exec); }
  void ConfigureSearches(const Exec& exec, const SearchSettings& settings) override {
    device_->ConfigureSearches(exec, settings);
  }
  // Recorded work has no operations to time: can_record stays false.
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    return device_->NewHostMirror(bytes);
  }
  StatusOr<void*> Allocate(size_t bytes) override {
    Timer timer(&profile["allocate"]);
    return device_->Allocate(bytes);
  }
  void Free(void* pointer, size_t bytes) override { device_->Free(pointer, bytes); }

 private:
  std::unique_ptr<Device> device_;
  KernelTable table_;
};

}  // namespace

std::unique_ptr<Device> MakeTimedDevice(std::unique_ptr<Device> device) {
  return std::make_unique<TimedDevice>(std::move(device));
}

const Profile& CurrentProfile() { return profile; }

void ResetProfile() { profile.clear(); }

}  // namespace te::bench
