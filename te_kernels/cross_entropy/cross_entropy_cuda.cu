// cross_entropy.h on CUDA: each logit is read from HBM once and its gradient written once. A row
// stays in shared memory between the pass that finds its log-sum-exp and the pass that writes: in
// one block's, or, when longer, in that of a cluster of up to 8 blocks (sm_90 on), each of which
// holds a part. Rows that fit neither are read twice.
//
// Per logit 4 bytes of bfloat16: 4096 rows of 32000 move 0.52 GB, 0.14 ms at 85% of 4.3 TB/s; of
// 128256 2.1 GB, 0.57 ms.
#include <cooperative_groups.h>

#include <algorithm>
#include <cmath>

#include "te_kernels/cross_entropy/cross_entropy.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te {
namespace {

// Several blocks share the 227 KiB of an SM of Hopper, so that some read while others write.
template <int kThreadsOfBlock, int kBlocksOfSm, int64_t kKiBOfBlock>
struct BlockShape {
  static constexpr int kThreads = kThreadsOfBlock;
  static constexpr int kWarps = kThreads / cuda::kWarp;
  static constexpr int kBlocks = kBlocksOfSm;
  static constexpr int64_t kMaxStaged = kKiBOfBlock * 1024;
};
using Large = BlockShape<384, 3, 72>;
// Blocks of a cluster start together, when the last of their places is free: smaller ones wait
// less.
using Small = BlockShape<256, 6, 36>;
constexpr int kMaxCluster = 8;  // the largest that every device with clusters takes

struct Rows {
  const void* logits;
  void* dlogits;  // may be null
  const int32_t* labels;
  float* loss;
  int64_t logits_stride, dlogits_stride, labels_stride, loss_stride;
  int64_t classes;
  int64_t chunk;  // classes of one block of a cluster; a multiple of the vector
  int32_t ignore_index;
  float label_smoothing;
};

// e^x, 0 below 2^-126. Without ftz each costs three instructions more, for subnormal results that
// neither a sum with a 1 in it nor a gradient has a use for. Errs by 2 units of the last place plus
// half a unit for each unit of x: relative to a sum, below float32's additions.
__device__ inline float Exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
  return y;
}

// What a part of a row contributes: the exponentials are relative to `most`.
struct Partial {
  float most = -INFINITY;
  float exps = 0;
  float sum = 0;  // of the logits

  // What to subtract: where all logits are -infinity so far, anything finite keeps exp at 0.
  __device__ static float Base(float most) { return most == -INFINITY ? 0 : most; }
  __device__ void Add(const Partial& other) {
    const float larger = fmaxf(most, other.most);
    const float base = Base(larger);
    exps = exps * Exp(most - base) + other.exps * Exp(other.most - base);
    sum += other.sum;
    most = larger;
  }
  // Only smoothing asks for the sum of the logits.
  template <int N>
  __device__ void Add(const float (&x)[N], bool smooths) {
    float larger = most;
#pragma unroll
    for (int e = 0; e < N; ++e) larger = fmaxf(larger, x[e]);
    const float base = Base(larger);
    float vector_exps = 0;
#pragma unroll
    for (int e = 0; e < N; ++e) vector_exps += Exp(x[e] - base);
    exps = exps * Exp(most - base) + vector_exps;
    most = larger;
    if (!smooths) return;
    float vector_sum = 0;
#pragma unroll
    for (int e = 0; e < N; ++e) vector_sum += x[e];
    sum += vector_sum;
  }
};

__device__ Partial WarpReduce(Partial p) {
#pragma unroll
  for (int offset = cuda::kWarp / 2; offset > 0; offset /= 2) {
    Partial other;
    other.most = __shfl_xor_sync(0xffffffffu, p.most, offset);
    other.exps = __shfl_xor_sync(0xffffffffu, p.exps, offset);
    other.sum = __shfl_xor_sync(0xffffffffu, p.sum, offset);
    p.Add(other);
  }
  return p;
}

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

// How a block keeps its part of a row between the passes.
enum class Keep { kShared, kNowhere };

// The cluster's, when kCluster; the block's own otherwise. In every thread. The cluster's barrier
// has been arrived at.
template <int kWarps, bool kCluster>
__device__ Partial Reduce(Partial p) {
  __shared__ Partial of_warps[kWarps];
  p = WarpReduce(p);
  if (threadIdx.x % cuda::kWarp == 0) of_warps[threadIdx.x / cuda::kWarp] = p;
  __syncthreads();
  p = of_warps[0];
  for (int i = 1; i < kWarps; ++i) p.Add(of_warps[i]);
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster) {
    // Each block gives its part to every block: after the barrier all reads are local, and a block
    // may end while others still work.
    __shared__ Partial of_blocks[kMaxCluster];
    const auto cluster = cooperative_groups::this_cluster();
    const unsigned int size = cluster.num_blocks(), rank = cluster.block_rank();
    // No block writes into another's shared memory before that one has started.
    cluster.barrier_wait();
    if (threadIdx.x < size) *cluster.map_shared_rank(&of_blocks[rank], threadIdx.x) = p;
    cluster.sync();
    p = of_blocks[0];
    for (unsigned int i = 1; i < size; ++i) p.Add(of_blocks[i]);
  }
#endif
  return p;
}

template <int kThreads, int N, typename T>
__device__ void Fill(T* p, int64_t classes, float value) {
  float values[N];
#pragma unroll
  for (int e = 0; e < N; ++e) values[e] = value;
  for (int64_t j = int64_t{threadIdx.x} * N; j < classes; j += kThreads * N)
    cuda::Store<N>(p + j, values);
}

// One row a block, or a cluster. N: elements of a vector, 16 bytes, or 1 where rows are not
// aligned; the part's classes that fill no vector come last, one by one.
template <typename T, int N, Keep kKeep, bool kCluster, typename Block>
__global__ void __launch_bounds__(Block::kThreads, Block::kBlocks)
    CrossEntropyKernel(const Rows rows) {
  constexpr int kThreads = Block::kThreads;
  cuda::StartAfterEarlierKernels();
  extern __shared__ __align__(16) unsigned char staged_bytes[];
  T* staged = reinterpret_cast<T*>(staged_bytes);
  unsigned int blocks = 1, rank = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster) {
    const auto cluster = cooperative_groups::this_cluster();
    blocks = cluster.num_blocks();
    rank = cluster.block_rank();
    cluster.barrier_arrive();
  }
#endif
  const int64_t t = blockIdx.x / blocks;
  const int64_t begin = rank * rows.chunk;
  const int64_t classes = max(int64_t{0}, min(rows.classes - begin, rows.chunk));
  const int64_t whole = classes / N * N;
  const T* row = static_cast<const T*>(rows.logits) + t * rows.logits_stride;
  const T* x = row + begin;
  T* dx = rows.dlogits == nullptr ? nullptr
                                  : static_cast<T*>(rows.dlogits) + t * rows.dlogits_stride + begin;
  const int32_t label = rows.labels[t * rows.labels_stride];
  float* loss = rows.loss + t * rows.loss_stride;

  const bool ignored = label == rows.ignore_index;
  if (ignored || label < 0 || label >= rows.classes) {
    const float value = ignored ? 0 : NAN;
    if (dx != nullptr) {
      Fill<kThreads, N>(dx, whole, value);
      Fill<kThreads, 1>(dx + whole, classes - whole, value);
    }
    if (rank == 0 && threadIdx.x == 0) *loss = value;
#if __CUDA_ARCH__ >= 900
    if constexpr (kCluster) cooperative_groups::this_cluster().barrier_wait();
#endif
    return;
  }
  // Before any block of the row passes the reduction's barrier and may overwrite it.
  const float target = cuda::ToFloat(row[label]);

  // A branch of its own is worth it for a vector only.
  const bool smooths = N == 1 || rows.label_smoothing != 0;
  const int64_t first = int64_t{threadIdx.x} * N;
  constexpr int64_t kStep = int64_t{kThreads} * N;
  Partial part;
  if constexpr (kKeep == Keep::kShared && N > 1) {
    // Four groups of copies in flight, so that the first exponentials overlap the last reads. A
    // thread waits for nothing but what it copied.
    const int64_t vectors = whole > first ? (whole - first + kStep - 1) / kStep : 0;
    const int64_t quarter = (vectors + 3) / 4;
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      const int64_t end = min(quarter * (group + 1), vectors);
      for (int64_t i = quarter * group; i < end; ++i)
        CopyAsync(staged + first + i * kStep, x + first + i * kStep);
      CommitCopies();
    }
    const auto add = [&](int group) {
      const int64_t end = min(quarter * (group + 1), vectors);
      for (int64_t i = quarter * group; i < end; ++i) {
        float values[N];
        cuda::Load<N>(staged + first + i * kStep, values);
        part.Add(values, smooths);
      }
    };
    WaitForCopies<3>();
    add(0);
    WaitForCopies<2>();
    add(1);
    WaitForCopies<1>();
    add(2);
    WaitForCopies<0>();
    add(3);
  } else {
#pragma unroll(kCluster&& N == 1 ? 2 : 4)
    for (int64_t j = first; j < whole; j += kStep) {
      float values[N];
      cuda::Load<N>(x + j, values);
      if constexpr (kKeep == Keep::kShared) cuda::Store<N>(staged + j, values);
      part.Add(values, smooths);
    }
  }
  for (int64_t j = whole + threadIdx.x; j < classes; j += kThreads) {
    const float value[1] = {cuda::ToFloat(x[j])};
    part.Add(value, smooths);
  }
  part = Reduce<Block::kWarps, kCluster>(part);

  const float lse = part.most + logf(part.exps);
  const float smoothing = rows.label_smoothing;
  const float inverse = 1.0f / static_cast<float>(rows.classes);
  if (rank == 0 && threadIdx.x == 0) {
    // Without smoothing the mean, which may be infinite, has no part in it.
    const float smoothed = smoothing == 0 ? 0 : smoothing * (part.sum * inverse);
    *loss = lse - (1 - smoothing) * target - smoothed;
  }
  if (dx == nullptr) return;
  const float uniform = smoothing * inverse;
  const float of_label = Exp(target - lse) - uniform - (1 - smoothing);
  const int64_t mine = label - begin;  // the label's place in this part, if it is in it
#pragma unroll 2
  for (int64_t j = first; j < whole; j += kStep) {
    float values[N];
    cuda::Load<N>(kKeep == Keep::kShared ? staged + j : x + j, values);
#pragma unroll
    for (int e = 0; e < N; ++e) values[e] = Exp(values[e] - lse) - uniform;
    cuda::Store<N>(dx + j, values);
    if (mine >= j && mine < j + N) dx[mine] = cuda::FromFloat<T>(of_label);
  }
  for (int64_t j = whole + threadIdx.x; j < classes; j += kThreads) {
    const float value = Exp(cuda::ToFloat(x[j]) - lse) - uniform;
    dx[j] = cuda::FromFloat<T>(j == mine ? of_label : value);
  }
}

template <typename T, int N, Keep kKeep, bool kCluster, typename Block>
Status Launch(const Exec& exec, const Rows& rows, int64_t num_rows, int blocks) {
  const auto kernel = CrossEntropyKernel<T, N, kKeep, kCluster, Block>;
  const size_t staged = kKeep == Keep::kShared ? static_cast<size_t>(rows.chunk) * sizeof(T) : 0;
  if (kKeep == Keep::kShared) {
    TE_RETURN_IF_ERROR(
        cuda::ToStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Block::kMaxStaged),
                       "cross_entropy: shared memory"));
  }
  const dim3 grid(static_cast<unsigned int>(num_rows * blocks));
  cuda::LaunchOverlapping(
      exec, kernel, grid, dim3(Block::kThreads),
      {.shared_bytes = staged, .cluster = kCluster ? static_cast<unsigned int>(blocks) : 0}, rows);
  return cuda::LaunchStatus("cross_entropy");
}

template <typename T, int N>
Status ByLength(const Exec& exec, Rows rows, int64_t num_rows) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const int64_t vectors = (rows.classes + N - 1) / N;
  // Whether a row's parts fit that many blocks.
  const auto fits = [&]<typename Block>(Block, int blocks) {
    rows.chunk = (vectors + blocks - 1) / blocks * N;
    return rows.chunk * static_cast<int64_t>(sizeof(T)) <= Block::kMaxStaged;
  };
  if (fits(Large(), 1)) return Launch<T, N, Keep::kShared, false, Large>(exec, rows, num_rows, 1);
  if (state->compute_capability() >= 90) {
    for (int blocks = 2; blocks <= kMaxCluster; blocks *= 2) {
      if (fits(Small(), blocks))
        return Launch<T, N, Keep::kShared, true, Small>(exec, rows, num_rows, blocks);
    }
    if (fits(Large(), kMaxCluster))
      return Launch<T, N, Keep::kShared, true, Large>(exec, rows, num_rows, kMaxCluster);
  }
  rows.chunk = rows.classes;
  return Launch<T, N, Keep::kNowhere, false, Large>(exec, rows, num_rows, 1);
}

template <typename T>
Status Run(const Exec& exec, const CrossEntropyArgs& args) {
  const bool writes = args.dlogits.defined();
  const Rows rows = {.logits = args.logits.data(),
                     .dlogits = args.dlogits.data(),
                     .labels = args.labels.as<int32_t>(),
                     .loss = args.loss.as<float>(),
                     .logits_stride = args.logits.stride(0),
                     .dlogits_stride = writes ? args.dlogits.stride(0) : 0,
                     .labels_stride = args.labels.stride(0),
                     .loss_stride = args.loss.stride(0),
                     .classes = args.logits.dim(1),
                     .chunk = 0,
                     .ignore_index = args.ignore_index,
                     .label_smoothing = args.label_smoothing};
  constexpr int kN = cuda::kLanes<T>;
  const bool aligned = cuda::Aligned<kN>(args.logits.as<T>(), rows.logits_stride) &&
                       (!writes || cuda::Aligned<kN>(args.dlogits.as<T>(), rows.dlogits_stride));
  return aligned ? ByLength<T, kN>(exec, rows, args.logits.dim(0))
                 : ByLength<T, 1>(exec, rows, args.logits.dim(0));
}

}  // namespace

Status CrossEntropyCuda(const Exec& exec, const CrossEntropyArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCrossEntropy(args));
  const auto bytes = args.logits.bytes() + (args.dlogits.defined() ? args.dlogits.bytes() : 0) +
                     args.labels.bytes() + args.loss.bytes();
  Record(exec, "cross_entropy", "cross_entropy_cuda", args.logits.dtype(),
         static_cast<int64_t>(bytes));
  if (args.logits.dim(0) == 0) return OkStatus();
  return args.logits.dtype() == DType::kFloat32 ? Run<float>(exec, args)
                                                : Run<bfloat16>(exec, args);
}

}  // namespace te
