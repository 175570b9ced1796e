// A ring of rows in shared memory that bulk copies fill (sm_90 on): a few instructions of one
// thread keep many rows on their way, in no register.
#pragma once

#include <cstdint>

#include "te_kernels/cuda/mbarrier.cuh"

namespace te::norm {

// Stages that a ring may have.
inline constexpr int kMostStages = 8;

// The ring of a group of threads. A stage holds one row of each of kTensors tensors, side by side.
// Every thread: Read the stage, a barrier of the group; then one thread may Fill the stage again,
// and all go on with Advance.
template <int kTensors>
class RowRing {
 public:
  // `memory`: stages * kTensors * row_bytes, aligned to 16 bytes, as are the rows.
  __device__ RowRing(unsigned char* memory, uint64_t* barriers, int stages, uint32_t row_bytes)
      : memory_(memory), barriers_(barriers), stages_(stages), row_bytes_(row_bytes) {}

  // By one thread, before its first Fill and before a barrier of all that wait.
  __device__ void Initialize() const {
#pragma unroll 1
    for (int s = 0; s < stages_; ++s) cuda::InitBarrier(barriers_ + s, 1);
    cuda::FenceBarrierInit();
  }

  // Starts the copies of one row of each tensor into `stage`.
  template <typename T>
  __device__ void Fill(int stage, const T* const (&rows)[kTensors]) const {
#if __CUDA_ARCH__ >= 900
    const uint32_t barrier = cuda::SharedAddress(barriers_ + stage);
    uint32_t to = cuda::SharedAddress(Stage(stage));
    // What the group has read of the stage, it has read before the copies write there.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    cuda::ArriveExpecting(barriers_ + stage, row_bytes_ * kTensors);
#pragma unroll
    for (int i = 0; i < kTensors; ++i, to += row_bytes_) {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
          "[%3];" ::"r"(to),
          "l"(__cvta_generic_to_global(rows[i])), "r"(row_bytes_), "r"(barrier)
          : "memory");
    }
#endif
  }

  // A thread's vectors of the current stage's rows, lane, lane + threads, ..., once they are there;
  // zeros from `vectors` on.
  template <typename Vector, int kVectors>
  __device__ void Read(int lane, int threads, int vectors,
                       Vector (&rows)[kTensors][kVectors]) const {
    cuda::WaitForPhase(barriers_ + stage_, parity_);
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = lane + j * threads;
#pragma unroll
      for (int k = 0; k < kTensors; ++k) {
        rows[k][j] = Vector{};
        if (i < vectors)
          rows[k][j] = reinterpret_cast<const Vector*>(Stage(stage_) + k * row_bytes_)[i];
      }
    }
  }

  __device__ int stage() const { return stage_; }
  __device__ void Advance() {
    if (++stage_ == stages_) {
      stage_ = 0;
      parity_ ^= 1;
    }
  }

 private:
  __device__ unsigned char* Stage(int stage) const {
    return memory_ + stage * (row_bytes_ * kTensors);
  }

  unsigned char* memory_;
  uint64_t* barriers_;
  int stages_;
  uint32_t row_bytes_;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

}  // namespace te::norm
