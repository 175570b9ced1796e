// The sum of a row's exponentials: of a thread, a warp, a block, a cluster of blocks.
#pragma once

#include <cooperative_groups.h>

#include <cmath>
#include <cstdint>

#include "te_kernels/cuda/mbarrier.cuh"
#include "te_kernels/cuda/reduce.cuh"

namespace te::cross_entropy_cuda {

inline constexpr int kMaxCluster = 8;  // the largest that every device with clusters takes

// 2^x, 0 below 2^-126. Without ftz each costs three instructions more, for subnormal results that
// neither a sum with a 1 in it nor a gradient has a use for. Errs by 2 units of the last place.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// e^(x - most) up to a factor that is the same for all x <= most: 2^(slope x + offset), one
// multiplication with an addition and one special function. Slope log2(e), and the factor is what
// rounding the offset leaves; it cancels where results relative to one offset are compared. From
// 2^29 on it would leave the range of floats; but there x is most, or smaller by 32 at least, whose
// exponential is nothing beside 1, whatever the slope: slope 1 has no rounding.
class Exponential {
 public:
  // Relative to 0 where `most` is -infinity, so that every 2^-infinity is 0.
  __device__ explicit Exponential(float most) {
    const float base = most == -INFINITY ? 0 : most;
    slope_ = fabsf(base) < 0x1p29f ? kLog2E : 1;
    offset_ = -(base * slope_);
  }
  __device__ float Exponent(float x) const { return __fmaf_rn(x, slope_, offset_); }
  __device__ float Of(float x) const { return Exp2(Exponent(x)); }
  // What a sum relative to a smaller `most` is to be multiplied with. (An empty one is relative to
  // 0, which may be the larger: any finite factor will do.)
  __device__ float Rescale(const Exponential& smaller) const {
    return slope_ == smaller.slope_ ? Exp2(fminf(offset_ - smaller.offset_, 0)) : 0;
  }
  // The natural logarithm of 2^exponent.
  __device__ float Natural(float exponent) const {
    return slope_ == 1 ? exponent : exponent * 0.693147181f;
  }

 private:
  static constexpr float kLog2E = 1.44269504f;
  float slope_, offset_;
};

// What a part of a row contributes: the exponentials are Exponential(most)'s.
struct alignas(16) Partial {
  float most = -INFINITY;
  float exps = 0;
  float sum = 0;  // of the logits; only smoothing asks for it
};

// A thread's part.
template <bool kSmooths>
class Accumulator {
 public:
  template <int N>
  __device__ void Add(const float (&x)[N]) {
    float larger = part_.most, sum = 0;
#pragma unroll
    for (int e = 0; e < N; ++e) larger = fmaxf(larger, x[e]);
    const Exponential exponential(larger);
    float added = 0;
#pragma unroll
    for (int e = 0; e < N; ++e) added += exponential.Of(x[e]);
    part_.exps = part_.exps * exponential.Rescale(exponential_) + added;
    part_.most = larger;
    exponential_ = exponential;
    if constexpr (kSmooths) {
#pragma unroll
      for (int e = 0; e < N; ++e) sum += x[e];
      part_.sum += sum;
    }
  }
  __device__ const Partial& part() const { return part_; }

 private:
  Partial part_;
  Exponential exponential_{-INFINITY};
};

// The lanes' partials as one, in every lane.
__device__ inline Partial WarpReduce(const Partial& p) {
  Partial whole;
  whole.most = cuda::WarpMax(p.most);
  whole.exps = cuda::WarpSum(p.exps * Exponential(whole.most).Rescale(Exponential(p.most)));
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
  // `arrived`: two barriers, initialized, and known to the whole cluster.
  __device__ ClusterReduction(Partial* shared, uint64_t* arrived)
      : of_block_(shared),
        shared_(shared + BlockReduction<kWarps>::kShared),
        arrived_(arrived),
        size_(cooperative_groups::this_cluster().num_blocks()),
        rank_(cooperative_groups::this_cluster().block_rank()) {}
  __device__ Partial Sum(const Partial& part) {
    const int buffer = row_ & 1;
    Partial* const parts = shared_ + buffer * kMaxCluster;
    uint64_t* const arrived = arrived_ + buffer;
    const Partial p = of_block_.Sum(part);
    if (threadIdx.x == 0)
      cuda::ArriveExpecting(arrived, size_ * static_cast<unsigned int>(sizeof(Partial)));
    if (threadIdx.x < size_) {
      asm volatile(
          "{\n.reg .b32 to, counter;\n"
          "mapa.shared::cluster.u32 to, %0, %2;\n"
          "mapa.shared::cluster.u32 counter, %1, %2;\n"
          "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [to], {%3, %4, %5, %5}, "
          "[counter];\n}" ::"r"(cuda::SharedAddress(parts + rank_)),
          "r"(cuda::SharedAddress(arrived)), "r"(threadIdx.x), "f"(p.most), "f"(p.exps), "f"(p.sum)
          : "memory");
    }
    cuda::WaitForPhase<cuda::Senders::kCluster>(arrived, row_ >> 1 & 1);
    ++row_;
    return ReduceShared(parts, static_cast<int>(size_));
  }

 private:
  BlockReduction<kWarps> of_block_;
  Partial* const shared_;
  uint64_t* const arrived_;
  const unsigned int size_, rank_;
  unsigned int row_ = 0;
};
#endif

}  // namespace te::cross_entropy_cuda
