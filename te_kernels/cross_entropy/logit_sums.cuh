// The sum of a row's exponentials: of a thread, a warp, a block, a cluster of blocks.
#pragma once

#include <cooperative_groups.h>

#include <cmath>
#include <cstdint>

#include "te_kernels/cuda/reduce.cuh"

namespace te::cross_entropy_cuda {

inline constexpr int kMaxCluster = 8;  // the largest that every device with clusters takes

// Exponentials are powers of 2 of x log2(e): one multiplication with an addition and one special
// function. A row's maximum is kept times log2(e), too; rounding it there is no error, since the
// sum, the gradient and the loss all are relative to the same value.
inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// 2^x, 0 below 2^-126. Without ftz each costs three instructions more, for subnormal results that
// neither a sum with a 1 in it nor a gradient has a use for. Errs by 2 units of the last place.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What a part of a row contributes: the exponentials are relative to e^most, most2 = most log2(e).
struct alignas(16) Partial {
  float most2 = -INFINITY;
  float exps = 0;
  float sum = 0;  // of the logits; only smoothing asks for it

  // What to subtract: where all logits are -infinity so far, anything finite keeps 2^x at 0.
  __device__ static float Base(float most2) { return most2 == -INFINITY ? 0 : most2; }
  template <bool kSmooths, int N>
  __device__ void Add(const float (&x)[N]) {
    float most = x[0];
#pragma unroll
    for (int e = 1; e < N; ++e) most = fmaxf(most, x[e]);
    const float larger = fmaxf(most2, most * kLog2E);
    const float base = Base(larger);
    float added = 0;
#pragma unroll
    for (int e = 0; e < N; ++e) added += Exp2(__fmaf_rn(x[e], kLog2E, -base));
    exps = exps * Exp2(most2 - base) + added;
    most2 = larger;
    if constexpr (kSmooths) {
      added = 0;
#pragma unroll
      for (int e = 0; e < N; ++e) added += x[e];
      sum += added;
    }
  }
};

// The lanes' partials as one, in every lane.
__device__ inline Partial WarpReduce(const Partial& p) {
  Partial whole;
  whole.most2 = cuda::WarpMax(p.most2);
  whole.exps = cuda::WarpSum(p.exps * Exp2(p.most2 - Partial::Base(whole.most2)));
  whole.sum = cuda::WarpSum(p.sum);
  return whole;
}
// `count` <= 32 partials in shared memory as one, in every thread.
__device__ inline Partial ReduceShared(const Partial* partials, int count) {
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  return WarpReduce(lane < count ? partials[lane] : Partial());
}

// The sum of a row's parts, in every thread of a block; one barrier. Two buffers in turn: a barrier
// of the next row lies between one buffer's uses.
template <int kWarps>
class BlockReduction {
 public:
  static constexpr int kShared = 2 * kWarps;
  __device__ explicit BlockReduction(Partial* shared) : shared_(shared) {}
  __device__ Partial Sum(const Partial& part) {
    Partial* of_warps = shared_ + buffer_ * kWarps;
    buffer_ ^= 1;
    const Partial p = WarpReduce(part);
    if (threadIdx.x % cuda::kWarp == 0) of_warps[threadIdx.x / cuda::kWarp] = p;
    __syncthreads();
    return ReduceShared(of_warps, kWarps);
  }

 private:
  Partial* const shared_;
  int buffer_ = 0;
};

#if __CUDA_ARCH__ >= 900
// The same of a cluster's blocks: each sends its part to every block, whose barrier in shared
// memory counts the bytes that have come. Nobody waits for earlier writes to global memory, as a
// barrier of the whole cluster does, and a block may end while others still work.
template <int kWarps>
class ClusterReduction {
 public:
  static constexpr int kShared = BlockReduction<kWarps>::kShared + 2 * kMaxCluster;
  // Ends with a barrier of the cluster: no block writes into another's shared memory before that
  // one has started.
  __device__ explicit ClusterReduction(Partial* shared)
      : of_block_(shared), shared_(shared + BlockReduction<kWarps>::kShared) {
    const auto cluster = cooperative_groups::this_cluster();
    size_ = cluster.num_blocks();
    rank_ = cluster.block_rank();
    __shared__ uint64_t arrived[2];
    arrived_ = arrived;
    if (threadIdx.x == 0) {
      for (int i = 0; i < 2; ++i)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(Address(arrived + i))
                     : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster.sync();
  }
  __device__ Partial Sum(const Partial& part) {
    const int buffer = row_ & 1;
    Partial* const parts = shared_ + buffer * kMaxCluster;
    const unsigned int arrived = Address(arrived_ + buffer);
    const Partial p = of_block_.Sum(part);
    if (threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(arrived),
                   "r"(size_ * static_cast<unsigned int>(sizeof(Partial)))
                   : "memory");
    }
    if (threadIdx.x < size_) {
      asm volatile(
          "{\n.reg .b32 to, counter;\n"
          "mapa.shared::cluster.u32 to, %0, %2;\n"
          "mapa.shared::cluster.u32 counter, %1, %2;\n"
          "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [to], {%3, %4, %5, %5}, "
          "[counter];\n}" ::"r"(Address(parts + rank_)),
          "r"(arrived), "r"(threadIdx.x), "f"(p.most2), "f"(p.exps), "f"(p.sum)
          : "memory");
    }
    Wait(arrived, row_ >> 1 & 1);
    ++row_;
    return ReduceShared(parts, static_cast<int>(size_));
  }

 private:
  template <typename P>
  __device__ static unsigned int Address(P* shared) {
    return static_cast<unsigned int>(__cvta_generic_to_shared(shared));
  }
  __device__ static void Wait(unsigned int barrier, unsigned int parity) {
    unsigned int done = 0;
    while (done == 0) {
      asm volatile(
          "{\n.reg .pred p;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n}"
          : "=r"(done)
          : "r"(barrier), "r"(parity)
          : "memory");
    }
  }

  BlockReduction<kWarps> of_block_;
  Partial* const shared_;
  uint64_t* arrived_;
  unsigned int size_, rank_;
  unsigned int row_ = 0;
};
#endif

}  // namespace te::cross_entropy_cuda
