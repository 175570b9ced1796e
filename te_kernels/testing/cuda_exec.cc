#include "te_kernels/testing/cuda_exec.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/testing/test_memory.h"

namespace te::test {
namespace {

// A test without a device cannot say anything.
void Require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "cuda_exec: %s\n", status.message().c_str());
  std::abort();
}

// Device memory filled with NaN (in every floating dtype): reading scratch before writing it shows.
class PoisonedDeviceMemory : public MemoryResource {
 public:
  StatusOr<void*> Allocate(size_t bytes) override {
    void* pointer = nullptr;
    TE_RETURN_IF_ERROR(cuda::ToStatus(cudaMalloc(&pointer, bytes), "cudaMalloc"));
    TE_RETURN_IF_ERROR(cuda::ToStatus(cudaMemset(pointer, 0xff, bytes), "cudaMemset"));
    TE_RETURN_IF_ERROR(cuda::ToStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize"));
    return pointer;
  }
  void Free(void* pointer, size_t) override { cudaFree(pointer); }
};

// Host memory that the device reads and writes by the same address. Blocks are kept: pinning one
// takes a hundred times longer than a small test.
class PinnedMemory : public MemoryResource {
 public:
  StatusOr<void*> Allocate(size_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t rounded = 4096;
    while (rounded < bytes) rounded *= 2;
    if (auto found = free_.find(rounded); found != free_.end()) {
      void* pointer = found->second;
      free_.erase(found);
      return pointer;
    }
    void* pointer = nullptr;
    TE_RETURN_IF_ERROR(
        cuda::ToStatus(cudaHostAlloc(&pointer, rounded, cudaHostAllocDefault), "cudaHostAlloc"));
    return pointer;
  }
  void Free(void* pointer, size_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t rounded = 4096;
    while (rounded < bytes) rounded *= 2;
    free_.emplace(rounded, pointer);
  }

 private:
  std::mutex mutex_;
  std::multimap<size_t, void*> free_;
};

// Tests linked with this file keep their tensors in pinned memory.
const bool kInstalled = [] {
  static PinnedMemory memory;
  SetTestMemory(&memory);
  return true;
}();

}  // namespace

struct CudaExec::Members {
  PoisonedDeviceMemory memory;
  Arena scratch{&memory};
  std::unique_ptr<cuda::CudaState> libraries;
  cudaStream_t stream = nullptr;
  Exec exec;
};

CudaExec::CudaExec(int num_threads, bool) : members_(std::make_unique<Members>()) {
  Require(cuda::ToStatus(cudaStreamCreateWithFlags(&members_->stream, cudaStreamNonBlocking),
                         "cudaStreamCreate"));
  auto libraries = cuda::CudaState::Create();
  Require(libraries.status());
  members_->libraries = std::move(libraries).value();
  members_->exec = {.stream = members_->stream,
                    .num_threads = num_threads,
                    .scratch = &members_->scratch,
                    .libraries = members_->libraries.get()};
}

CudaExec::~CudaExec() {
  cudaStreamSynchronize(members_->stream);
  cudaStreamDestroy(members_->stream);
}

CudaExec::operator const Exec&() const { return members_->exec; }

Arena& CudaExec::scratch() { return members_->scratch; }

Status WaitFor(const Exec& exec, Status status) {
  const Status after =
      cuda::ToStatus(cudaStreamSynchronize(cuda::StreamOf(exec)), "after the operation");
  return status.ok() ? after : status;
}

}  // namespace te::test
