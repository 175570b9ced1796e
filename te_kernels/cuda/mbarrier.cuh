// Barriers in shared memory that count arrivals and the bytes that asynchronous copies bring (sm_90
// on; elsewhere these functions do nothing).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace te::cuda {

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// By one thread; then FenceBarrierInit, and a barrier of all threads (of the cluster, where its
// blocks use it) before anyone else's first use.
__device__ inline void InitBarrier(uint64_t* barrier, uint32_t arrivals) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
#endif
}
__device__ inline void FenceBarrierInit() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Arrives, and lets the phase last until that many bytes have come, too. (Of the block's scope: a
// release to the cluster waits for all that the thread has written, to global memory as well.)
__device__ inline void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
#endif
}

// Whose writes can be read after a wait: the block's own and its copies', or those of the whole
// cluster, for which the L1 cache is emptied.
enum class Senders { kBlock, kCluster };

// Until the phase of this parity (0 at first, then 1, 0, ...) is complete.
template <Senders kSenders = Senders::kBlock>
__device__ inline void WaitForPhase(uint64_t* barrier, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  uint32_t done;
  do {
    if constexpr (kSenders == Senders::kBlock) {
      asm volatile(
          "{\n"
          ".reg .pred p;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n"
          "}"
          : "=r"(done)
          : "r"(SharedAddress(barrier)), "r"(parity)
          : "memory");
    } else {
      asm volatile(
          "{\n"
          ".reg .pred p;\n"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n"
          "}"
          : "=r"(done)
          : "r"(SharedAddress(barrier)), "r"(parity)
          : "memory");
    }
  } while (done == 0);
#endif
}

}  // namespace te::cuda
