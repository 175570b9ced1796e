#include "te_kernels/device/cpu_device.h"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "te_kernels/gemm/onednn_state.h"

namespace te {
namespace {

constexpr size_t kAlignment = 256;

constexpr KernelTable kCpuKernels = {
    .gemm = GemmCpu,
    .batched_gemm = BatchedGemmCpu,
    .rms_norm_forward = RmsNormForwardCpu,
    .rms_norm_backward = RmsNormBackwardCpu,
    .layer_norm_forward = LayerNormForwardCpu,
    .layer_norm_backward = LayerNormBackwardCpu,
    .activation_forward = ActivationForwardCpu,
    .activation_backward = ActivationBackwardCpu,
    .rope = RopeCpu,
    .attention_forward = AttentionForwardCpu,
    .attention_backward = AttentionBackwardCpu,
    .attention_fp8_forward = AttentionFp8ForwardCpu,
    .attention_fp8_backward = AttentionFp8BackwardCpu,
    .softmax_forward = SoftmaxForwardCpu,
    .softmax_backward = SoftmaxBackwardCpu,
    .cross_entropy = CrossEntropyCpu,
    .count_labels = CountLabelsCpu,
    .count_nonfinite = CountNonfiniteCpu,
    .embedding_forward = EmbeddingForwardCpu,
    .embedding_backward = EmbeddingBackwardCpu,
    .add = AddCpu,
    .multiply = MultiplyCpu,
    .cast = CastCpu,
    .quantize = QuantizeCpu,
    .dequantize = DequantizeCpu,
    .transpose = TransposeCpu,
    .delayed_scaling = DelayedScalingCpu,
    .dropout_forward = DropoutForwardCpu,
    .dropout_backward = DropoutBackwardCpu,
    .bias_gradient = BiasGradientCpu,
    .sum = SumCpu,
    .step_update = StepUpdateCpu,
    .adamw = AdamWCpu,
    .random_fill = RandomFillCpu,
    .repeat_kv_forward = RepeatKvForwardCpu,
    .repeat_kv_backward = RepeatKvBackwardCpu,
};

class CpuHostMirror : public HostMirror {
 public:
  explicit CpuHostMirror(size_t bytes) : bytes_(bytes) {}
  Status Fetch(const Exec&, const void* device) override {
    std::memcpy(bytes_.data(), device, bytes_.size());
    return OkStatus();
  }
  StatusOr<const void*> Wait() override { return static_cast<const void*>(bytes_.data()); }

 private:
  std::vector<char> bytes_;
};

// Host memory. Calls are synchronous: there is nothing to wait for.
class CpuDevice : public Device {
 public:
  const char* name() const override { return "cpu"; }
  const KernelTable& kernels() const override { return kCpuKernels; }
  bool host_accessible() const override { return true; }

  int default_threads() const override {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    return CPU_COUNT(&set);
  }

  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override { return NewOnednnState(); }

  StatusOr<void*> Allocate(size_t bytes) override {
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* pointer = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
    if (pointer == nullptr) {
      return OutOfMemory("asked for {} bytes of host memory; {} are free", bytes, FreeBytes());
    }
    return pointer;
  }
  void Free(void* pointer, size_t) override { std::free(pointer); }

  Status CopyToHost(const Exec&, const void* device, void* host, size_t bytes) override {
    if (bytes != 0) std::memcpy(host, device, bytes);
    return OkStatus();
  }
  Status CopyFromHost(const Exec&, const void* host, void* device, size_t bytes) override {
    if (bytes != 0) std::memcpy(device, host, bytes);
    return OkStatus();
  }
  Status Zero(const Exec&, void* device, size_t bytes) override {
    if (bytes != 0) std::memset(device, 0, bytes);
    return OkStatus();
  }
  Status Synchronize(const Exec&) override { return OkStatus(); }
  StatusOr<void*> NewStream() override { return static_cast<void*>(nullptr); }
  void FreeStream(void*) override {}
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    return std::unique_ptr<HostMirror>(std::make_unique<CpuHostMirror>(bytes));
  }

 private:
  static size_t FreeBytes() {
    return static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) *
           static_cast<size_t>(sysconf(_SC_PAGESIZE));
  }
};

}  // namespace

std::unique_ptr<Device> NewCpuDevice() { return std::make_unique<CpuDevice>(); }

}  // namespace te
