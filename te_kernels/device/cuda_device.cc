#include "te_kernels/device/cuda_device.h"

#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "te_kernels/attention/sdpa_graph.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/time_candidates.h"
#include "te_kernels/gemm/cublaslt_matmul.h"

namespace te {
namespace {

using cuda::StreamOf;
using cuda::ToStatus;

constexpr KernelTable kCudaKernels = {
    .gemm = GemmCuda,
    .batched_gemm = BatchedGemmCuda,
    .rms_norm_forward = RmsNormForwardCuda,
    .rms_norm_backward = RmsNormBackwardCuda,
    .layer_norm_forward = LayerNormForwardCuda,
    .layer_norm_backward = LayerNormBackwardCuda,
    .activation_forward = ActivationForwardCuda,
    .activation_backward = ActivationBackwardCuda,
    .rope = RopeCuda,
    .attention_forward = AttentionForwardCuda,
    .attention_backward = AttentionBackwardCuda,
    .attention_fp8_forward = AttentionFp8ForwardCuda,
    .attention_fp8_backward = AttentionFp8BackwardCuda,
    .softmax_forward = SoftmaxForwardCuda,
    .softmax_backward = SoftmaxBackwardCuda,
    .cross_entropy = CrossEntropyCuda,
    .count_labels = CountLabelsCuda,
    .count_nonfinite = CountNonfiniteCuda,
    .embedding_forward = EmbeddingForwardCuda,
    .embedding_backward = EmbeddingBackwardCuda,
    .add = AddCuda,
    .multiply = MultiplyCuda,
    .cast = CastCuda,
    .quantize = QuantizeCuda,
    .dequantize = DequantizeCuda,
    .transpose = TransposeCuda,
    .delayed_scaling = DelayedScalingCuda,
    .dropout_forward = DropoutForwardCuda,
    .dropout_backward = DropoutBackwardCuda,
    .bias_gradient = BiasGradientCuda,
    .sum = SumCuda,
    .step_update = StepUpdateCuda,
    .adamw = AdamWCuda,
    .random_fill = RandomFillCuda,
    .repeat_kv_forward = RepeatKvForwardCuda,
    .repeat_kv_backward = RepeatKvBackwardCuda,
};

// Small copies from the host go through pinned memory, so that the caller's buffer is free at once
// and the stream is not waited for. A ring: a slot is used again once its copy has been made.
class StagingRing {
 public:
  static constexpr size_t kSlotBytes = size_t{1} << 20;

  StagingRing() = default;
  ~StagingRing() {
    for (Slot& slot : slots_) {
      if (slot.event != nullptr) cudaEventDestroy(slot.event);
      if (slot.data != nullptr) cudaFreeHost(slot.data);
    }
  }
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  Status Copy(cudaStream_t stream, const void* host, void* device, size_t bytes) {
    Slot& slot = slots_[next_++ % slots_.size()];
    if (slot.data == nullptr) {
      TE_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&slot.event, cudaEventDisableTiming),
                                  "cudaEventCreate"));
      TE_RETURN_IF_ERROR(
          ToStatus(cudaHostAlloc(&slot.data, kSlotBytes, cudaHostAllocDefault), "cudaHostAlloc"));
    } else {
      TE_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(slot.event), "copy from host"));
    }
    std::memcpy(slot.data, host, bytes);
    TE_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(device, slot.data, bytes, cudaMemcpyHostToDevice, stream),
                 "copy from host"));
    return ToStatus(cudaEventRecord(slot.event, stream), "cudaEventRecord");
  }

 private:
  struct Slot {
    void* data = nullptr;
    cudaEvent_t event = nullptr;
  };
  std::array<Slot, 16> slots_;
  size_t next_ = 0;
};

class CudaHostMirror : public HostMirror {
 public:
  explicit CudaHostMirror(size_t bytes) : bytes_(bytes) {}
  ~CudaHostMirror() override {
    if (event_ != nullptr) {
      cudaEventSynchronize(event_);  // a copy into memory that is about to go
      cudaEventDestroy(event_);
    }
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  Status Create() {
    TE_RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"));
    return ToStatus(cudaHostAlloc(&data_, bytes_, cudaHostAllocDefault), "cudaHostAlloc");
  }
  Status Fetch(const Exec& exec, const void* device) override {
    TE_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(data_, device, bytes_, cudaMemcpyDeviceToHost, StreamOf(exec)),
                 "copy to host"));
    return ToStatus(cudaEventRecord(event_, StreamOf(exec)), "cudaEventRecord");
  }
  StatusOr<const void*> Wait() override {
    TE_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(event_), "copy to host"));
    return static_cast<const void*>(data_);
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

class CudaGraph : public RecordedWork {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  Status Launch(const Exec& exec) override {
    return ToStatus(cudaGraphLaunch(graph_, StreamOf(exec)), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t graph_;
};

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {}

  const char* name() const override { return "cuda"; }
  const KernelTable& kernels() const override { return kCudaKernels; }
  int default_threads() const override { return 1; }

  // Of the highest priority, so that there is one behind it.
  StatusOr<void*> NewStream() override {
    TE_ASSIGN_OR_RETURN(const Priorities priorities, StreamPriorities());
    return NewStreamOf(priorities.highest);
  }
  StatusOr<void*> NewStreamBehind(void* stream) override {
    TE_ASSIGN_OR_RETURN(const Priorities priorities, StreamPriorities());
    int own = 0;
    TE_RETURN_IF_ERROR(ToStatus(cudaStreamGetPriority(static_cast<cudaStream_t>(stream), &own),
                                "cudaStreamGetPriority"));
    if (own >= priorities.lowest) return static_cast<void*>(nullptr);
    return NewStreamOf(priorities.lowest);
  }
  Status Follow(const Exec& waiting, const Exec& awaited) override {
    cudaEvent_t event = nullptr;
    TE_RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate"));
    cudaError_t error = cudaEventRecord(event, StreamOf(awaited));
    if (error == cudaSuccess) error = cudaStreamWaitEvent(StreamOf(waiting), event, 0);
    cudaEventDestroy(event);  // once it has come to pass
    return ToStatus(error, "waiting for another stream");
  }
  void FreeStream(void* stream) override {
    cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
    cudaStreamDestroy(static_cast<cudaStream_t>(stream));
  }

  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    TE_RETURN_IF_ERROR(Select());
    TE_ASSIGN_OR_RETURN(std::unique_ptr<cuda::CudaState> state, cuda::CudaState::Create());
    return std::unique_ptr<LibraryState>(std::move(state));
  }

  StatusOr<void*> Allocate(size_t bytes) override {
    TE_RETURN_IF_ERROR(Select());
    void* pointer = nullptr;
    const cudaError_t error = cudaMalloc(&pointer, bytes);
    if (error == cudaSuccess) return pointer;
    cudaGetLastError();  // the refusal is reported here; later calls must not see it
    if (error != cudaErrorMemoryAllocation) return ToStatus(error, "cudaMalloc");
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return OutOfMemory("asked for {} bytes of device memory; {} of {} are free", bytes, free_bytes,
                       total_bytes);
  }
  void Free(void* pointer, size_t) override { cudaFree(pointer); }

  Status CopyToHost(const Exec& exec, const void* device, void* host, size_t bytes) override {
    if (bytes == 0) return OkStatus();
    return ToStatus(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, StreamOf(exec)),
                    "copy to host");
  }
  Status CopyFromHost(const Exec& exec, const void* host, void* device, size_t bytes) override {
    if (bytes == 0) return OkStatus();
    if (bytes <= StagingRing::kSlotBytes) return staging_.Copy(StreamOf(exec), host, device, bytes);
    TE_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, StreamOf(exec)),
                 "copy from host"));
    return Synchronize(exec);
  }
  StatusOr<std::string> ChoicesKey(const Exec&) override {
    TE_RETURN_IF_ERROR(Select());
    TE_ASSIGN_OR_RETURN(const std::string card, cuda::CardAndDriver());
    return fmt::format("{} | cublasLt {} | cudnn {}", card, LtVersion(), SdpaVersion());
  }
  StatusOr<std::string> TunedChoices(const Exec& exec, WhichChoices which) override {
    TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
    TE_ASSIGN_OR_RETURN(const std::string products, SaveLtChoices(state, which));
    TE_ASSIGN_OR_RETURN(const std::string attention, SaveSdpaChoices(state, which));
    return products + attention;
  }
  StatusOr<bool> PinChoices(const Exec& exec, const std::string& text, PinAs as) override {
    TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
    const std::string section = std::string("\n") + kSdpaChoicesTitle;
    const size_t end = text.find(section);
    TE_ASSIGN_OR_RETURN(const auto products, ParseLtChoices(state, text.substr(0, end), as));
    std::optional<SdpaChoices> attention;
    if (end != std::string::npos) {
      TE_ASSIGN_OR_RETURN(attention, ParseSdpaChoices(state, text.substr(end + 1), as));
    }
    // Both are read before either is taken.
    if (products) PinLtChoices(state, *products, as);
    if (attention) PinSdpaChoices(state, *attention, as);
    return products.has_value() || attention.has_value();
  }
  SearchTotals Searches(const Exec& exec) override {
    const auto state = cuda::GetCudaState(exec);
    return state.ok() ? cuda::SearchSession::Of(*state)->totals() : SearchTotals();
  }
  void ConfigureSearches(const Exec& exec, const SearchSettings& settings) override {
    if (const auto state = cuda::GetCudaState(exec); state.ok())
      cuda::SearchSession::Of(*state)->Configure(settings);
  }
  Status Zero(const Exec& exec, void* device, size_t bytes) override {
    if (bytes == 0) return OkStatus();
    return ToStatus(cudaMemsetAsync(device, 0, bytes, StreamOf(exec)), "zero");
  }
  Status Synchronize(const Exec& exec) override {
    return ToStatus(cudaStreamSynchronize(StreamOf(exec)), "synchronize");
  }
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    TE_RETURN_IF_ERROR(Select());
    auto mirror = std::make_unique<CudaHostMirror>(bytes);
    TE_RETURN_IF_ERROR(mirror->Create());
    return std::unique_ptr<HostMirror>(std::move(mirror));
  }

  // CUDA captures every stream but the one that waits for all others.
  bool can_record(const Exec& exec) const override { return StreamOf(exec) != cudaStreamLegacy; }
  Status BeginRecording(const Exec& exec) override {
    TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
    TE_RETURN_IF_ERROR(state->counters().BeginRecording(this));
    const cudaError_t error =
        cudaStreamBeginCapture(StreamOf(exec), cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) TE_RETURN_IF_ERROR(state->counters().EndRecording(nullptr));
    return ToStatus(error, "cudaStreamBeginCapture");
  }
  StatusOr<std::unique_ptr<RecordedWork>> EndRecording(const Exec& exec) override {
    TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
    cudaGraph_t graph = nullptr;  // stays null when the capture has failed
    const cudaError_t ended = cudaStreamEndCapture(StreamOf(exec), &graph);
    Status status = state->counters().EndRecording(graph);
    if (ended != cudaSuccess) status = ToStatus(ended, "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    if (status.ok()) {
      // Kernels keep the priorities of the streams that they were recorded on.
      status = ToStatus(
          cudaGraphInstantiate(&executable, graph, cudaGraphInstantiateFlagUseNodePriority),
          "cudaGraphInstantiate");
    }
    if (graph != nullptr) cudaGraphDestroy(graph);
    TE_RETURN_IF_ERROR(status);
    return std::unique_ptr<RecordedWork>(std::make_unique<CudaGraph>(executable));
  }

 private:
  Status Select() { return ToStatus(cudaSetDevice(ordinal_), "cudaSetDevice"); }
  // Numbers fall as priorities rise.
  struct Priorities {
    int lowest = 0, highest = 0;
  };
  StatusOr<Priorities> StreamPriorities() {
    TE_RETURN_IF_ERROR(Select());
    Priorities out;
    TE_RETURN_IF_ERROR(ToStatus(cudaDeviceGetStreamPriorityRange(&out.lowest, &out.highest),
                                "cudaDeviceGetStreamPriorityRange"));
    return out;
  }
  static StatusOr<void*> NewStreamOf(int priority) {
    cudaStream_t stream = nullptr;
    TE_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority),
                 "cudaStreamCreateWithPriority"));
    return static_cast<void*>(stream);
  }

  int ordinal_;
  StagingRing staging_;
};

}  // namespace

StatusOr<std::unique_ptr<Device>> NewCudaDevice(int ordinal) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();
    return Unsupported("device 'cuda': {}", cudaGetErrorString(error));
  }
  if (ordinal >= count)
    return Unsupported("device 'cuda:{}': CUDA shows {} devices", ordinal, count);
  return std::unique_ptr<Device>(std::make_unique<CudaDevice>(ordinal));
}

}  // namespace te
