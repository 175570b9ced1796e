// What cross entropy's kernels work on, and the ring in shared memory through which a thread's part
// of the rows comes.
#pragma once

#include <cstdint>

#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cross_entropy_cuda {

// The operation's arguments, and how blocks share a row.
struct Rows {
  const void* logits;
  void* dlogits;  // may be null
  const int32_t* labels;
  float* loss;
  int64_t logits_stride, dlogits_stride;
  int64_t rows, classes;
  int64_t chunk;  // classes of one block of a cluster; a multiple of the vector
  int groups;     // of a thread's ring that a chunk takes
  int32_t ignore_index;
  float label_smoothing;

  __device__ int32_t Label(int64_t t) const { return labels[t]; }
  __device__ bool Counts(int32_t label) const {
    return label != ignore_index && label >= 0 && label < classes;
  }
};

// Threads of a block, blocks of an SM, and a thread's ring in shared memory: groups of kVectors of
// 16 bytes, one row's and kAhead more, kGroups together.
template <int kThreadsOfBlock, int kBlocksOfSm, int kVectorsOfGroup, int kGroupsOfRing,
          int kGroupsAhead>
struct Shape {
  static constexpr int kThreads = kThreadsOfBlock;
  static constexpr int kWarps = kThreads / cuda::kWarp;
  static constexpr int kBlocks = kBlocksOfSm;
  static constexpr int kVectors = kVectorsOfGroup;
  static constexpr int kGroups = kGroupsOfRing;
  static constexpr int kAhead = kGroupsAhead;
  static constexpr int kRingBytes = kThreads * 16 * kVectors * kGroups;
};

// 16 bytes from global to shared memory, past the registers.
__device__ inline void CopyAsync(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<unsigned int>(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// The same for a number that is known late, at most kMost.
template <int kMost>
__device__ inline void WaitForCopies(int pending) {
  if constexpr (kMost > 0) {
    if (pending < kMost) return WaitForCopies<kMost - 1>(pending);
  }
  WaitForCopies<kMost>();
}

// A thread's part of the rows that its block goes through, as they come: rows t, t + step, ...,
// each `groups` groups of vectors, in a ring of kAhead more. A thread waits for nothing but what it
// copied itself.
template <typename T, typename Block>
class Ring {
 public:
  static constexpr int N = cuda::kLanes<T>;
  static constexpr int kStep = Block::kThreads * N;  // between a thread's vectors
  static constexpr int kGroupStep = kStep * Block::kVectors;

  // `begin`, `whole`: the block's part of a row, and how many of its classes fill vectors.
  __device__ Ring(unsigned char* shared, const Rows& rows, int64_t t, int64_t step, int64_t begin,
                  int whole)
      : rows_(rows),
        step_(step),
        row_(static_cast<const T*>(rows.logits) + t * rows.logits_stride + begin),
        whole_(whole),
        slots_(reinterpret_cast<T*>(shared) + First()),
        end_((rows.groups + Block::kAhead) * kGroupStep),
        t_(t) {
    label_ = rows.Label(t);
    Enter();
  }
  // A thread's first vector in a row.
  __device__ static int First() { return static_cast<int>(threadIdx.x) * N; }

  // The place of the group that stands `groups` behind the oldest.
  __device__ int Place(int groups) const { return Wrapped(oldest_ + groups * kGroupStep); }
  __device__ int NextPlace(int place) const { return Wrapped(place + kGroupStep); }
  // Until the first row's group g has arrived, all of the ring having been filled.
  __device__ void WaitFirst(int g) const {
    WaitForCopies<Block::kGroups - 1>(rows_.groups + Block::kAhead - 1 - g);
  }
  // Until the group that stands behind the oldest by as many as a row has, less one, has arrived.
  __device__ void WaitNext() const { WaitForCopies<Block::kAhead>(); }
  // Calls f(offset in the part, vector) for the group at `place`, whose first vector's offset is j.
  template <typename F>
  __device__ void ForEach(int place, int j, F f) const {
#pragma unroll
    for (int v = 0; v < Block::kVectors; ++v) {
      if (j + v * kStep < whole_) f(j + v * kStep, slots_ + place + v * kStep);
    }
  }
  // The oldest group is done with: the copies of a later one start in its place.
  __device__ void Refill() {
    if (copies_) {
#pragma unroll
      for (int v = 0; v < Block::kVectors; ++v) {
        if (j_ + v * kStep < whole_) CopyAsync(slots_ + oldest_ + v * kStep, row_ + j_ + v * kStep);
      }
    }
    CommitCopies();  // without copies too: groups are counted
    oldest_ = NextPlace(oldest_);
    j_ += kGroupStep;
    if (j_ < rows_.groups * kGroupStep) return;
    t_ += step_;
    row_ += step_ * rows_.logits_stride;
    Enter();
  }

 private:
  __device__ int Wrapped(int place) const { return place >= end_ ? place - end_ : place; }
  // Row t_ is copied next, if it counts; the label after it is under way.
  __device__ void Enter() {
    j_ = First();
    copies_ = t_ < rows_.rows && rows_.Counts(label_);
    if (t_ + step_ < rows_.rows) label_ = rows_.Label(t_ + step_);
  }

  const Rows& rows_;
  const int64_t step_;
  const T* row_;  // the part in row t_
  const int whole_;
  T* const slots_;
  const int end_;
  int64_t t_;  // the row that is copied
  int32_t label_ = 0;
  int j_ = 0;       // the thread's next vector there
  int oldest_ = 0;  // the place that is filled next
  bool copies_ = false;
};

}  // namespace te::cross_entropy_cuda
