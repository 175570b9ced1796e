// cross_entropy.h on CUDA: each logit is read from HBM once and its gradient written once. A row
// stays in shared memory between the pass that adds its exponentials and the pass that writes: in
// one block's, or, when longer, in that of a cluster of up to 8 blocks (sm_90 on), each of which
// holds a part. Blocks stay for many rows: one row's gradients are written while the next one's
// exponentials are added and later ones arrive, so that memory is never waited for. Rows that fit
// no cluster, or whose vectors are not aligned, are read twice.
//
// Per logit 4 bytes of bfloat16: 4096 rows of 32000 move 0.52 GB, 0.14 ms at 85% of 4.3 TB/s; of
// 128256 2.1 GB, 0.57 ms.
#include <algorithm>
#include <cmath>

#include "te_kernels/cross_entropy/cross_entropy.h"
#include "te_kernels/cross_entropy/logit_ring.cuh"
#include "te_kernels/cross_entropy/logit_sums.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/shared_memory.h"
#include "te_kernels/cuda/vector.cuh"

namespace te {
namespace cross_entropy_cuda {
namespace {

// Either fills the 227 KiB of an SM of Hopper. Two blocks: one works while the other waits for its
// row's sum. In a cluster, one large block of each SM was faster than two.
using SingleBlock = Shape<512, 2, 2, 7, 3>;
using BlockOfCluster = Shape<1024, 1, 1, 14, 6>;

template <int kThreads, int N, typename T>
__device__ void Fill(T* p, int64_t classes, float value) {
  float values[N];
#pragma unroll
  for (int e = 0; e < N; ++e) values[e] = value;
  for (int64_t j = int64_t{threadIdx.x} * N; j < classes; j += kThreads * N)
    cuda::Store<N>(p + j, values);
}

// One row's probabilities and loss, once its sum is known.
struct RowResult {
  Exponential exponential;
  float inverse_exps, log_exps;
  float smoothing, uniform;  // uniform: what smoothing gives to each class

  __device__ RowResult(const Rows& rows, const Partial& row)
      : exponential(row.most),
        inverse_exps(1.0f / row.exps),
        log_exps(logf(row.exps)),
        smoothing(rows.label_smoothing),
        uniform(smoothing / static_cast<float>(rows.classes)) {}
  // Of a class that is not the label.
  __device__ float Gradient(float x) const {
    return __fmaf_rn(exponential.Of(x), inverse_exps, -uniform);
  }
  __device__ float LabelGradient(float x) const { return Gradient(x) - (1 - smoothing); }
  // `sum`: of the row's logits. Without smoothing it may be infinite and has no part in it.
  __device__ float Loss(float target, float sum) const {
    if (smoothing == 0) return log_exps - exponential.Natural(exponential.Exponent(target));
    const float log_sum_exp = log_exps - exponential.Natural(exponential.Exponent(0));
    return log_sum_exp - (1 - smoothing) * target - uniform * sum;
  }
};

// The gradients of N classes, as if none were the label.
template <int N, typename T>
__device__ void WriteGradients(const RowResult& result, const T* x, T* dx) {
  float values[N];
  cuda::Load<N>(x, values);
#pragma unroll
  for (int e = 0; e < N; ++e) values[e] = result.Gradient(values[e]);
  cuda::Store<N>(dx, values);
}

// Rows whose label does not count: zeros, NaN for a label that is no class.
template <int kThreads, int N, typename T>
__device__ void SkipRow(const Rows& rows, int64_t t, int32_t label, T* dx, int64_t classes,
                        bool writes) {
  const float value = label == rows.ignore_index ? 0 : NAN;
  const int64_t whole = classes / N * N;
  if (dx != nullptr) {
    Fill<kThreads, N>(dx, whole, value);
    Fill<kThreads, 1>(dx + whole, classes - whole, value);
  }
  if (writes) rows.loss[t] = value;
}

// Whether this thread is the one that reads and writes class `label` of a part, if that is in it.
// N: elements of a vector; the classes behind the last whole one go one by one.
template <int kThreads, int N>
__device__ bool Owns(int64_t label, int64_t whole, int64_t classes) {
  if (label < 0 || label >= classes) return false;
  return (label < whole ? label / N : label - whole) % kThreads == threadIdx.x;
}

// Vectors of 16 bytes; the part's classes that fill none come last, one by one.
template <typename T, bool kSmooths, bool kCluster, typename Block>
__global__ void __launch_bounds__(Block::kThreads, Block::kBlocks)
    CrossEntropyKernel(const __grid_constant__ Rows rows) {
  constexpr int kThreads = Block::kThreads, N = cuda::kLanes<T>;
  using RowRing = Ring<T, Block>;
  cuda::StartAfterEarlierKernels();
  extern __shared__ __align__(16) unsigned char shared[];
  unsigned int blocks = 1, rank = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster) {
    blocks = cooperative_groups::this_cluster().num_blocks();
    rank = cooperative_groups::this_cluster().block_rank();
  }
#endif
  const int64_t step = gridDim.x / blocks, begin = rank * rows.chunk;
  const int classes = static_cast<int>(max(int64_t{0}, min(rows.classes - begin, rows.chunk)));
  const int whole = classes / N * N;
  int64_t t = blockIdx.x / blocks;
  RowRing ring(shared, rows, t, step, begin, whole);
  for (int i = 0; i < rows.groups + Block::kAhead; ++i) ring.Refill();
  const auto make_sums = [] {
    constexpr int kWarps = Block::kWarps;
#if __CUDA_ARCH__ >= 900
    if constexpr (kCluster) {
      __shared__ Partial parts[ClusterReduction<kWarps>::kShared];
      __shared__ uint64_t arrived[2];
      if (threadIdx.x == 0) {
        cuda::InitBarrier(arrived, 1);
        cuda::InitBarrier(arrived + 1, 1);
        cuda::FenceBarrierInit();
      }
      // No block writes into another's shared memory before that one is ready.
      cooperative_groups::this_cluster().sync();
      return ClusterReduction<kWarps>(parts, arrived);
    } else
#endif
    {
      __shared__ Partial parts[BlockReduction<kWarps>::kShared];
      return BlockReduction<kWarps>(parts);
    }
  };
  auto sums = make_sums();
  const T* const logits = static_cast<const T*>(rows.logits);
  const auto add = [&](int place, int j, Accumulator<kSmooths>* part) {
    ring.ForEach(place, j, [&](int, const T* vector) {
      float values[N];
      cuda::Load<N>(vector, values);
      part->Add(values);
    });
  };
  const auto add_last = [&](const T* row, Accumulator<kSmooths>* part) {
    for (int j = whole + static_cast<int>(threadIdx.x); j < classes; j += kThreads) {
      const float value[1] = {cuda::ToFloat(row[begin + j])};
      part->Add(value);
    }
  };

  int32_t label = rows.Label(t);
  bool counts = rows.Counts(label);
  Accumulator<kSmooths> part;
  if (counts) {
    for (int g = 0; g < rows.groups; ++g) {
      ring.WaitFirst(g);
      add(ring.Place(g), RowRing::First() + g * RowRing::kGroupStep, &part);
    }
    add_last(logits + t * rows.logits_stride, &part);
  }
  for (; t < rows.rows; t += step) {
    const T* row = logits + t * rows.logits_stride;
    T* dx = rows.dlogits == nullptr
                ? nullptr
                : static_cast<T*>(rows.dlogits) + t * rows.dlogits_stride + begin;
    const int32_t next_label = t + step < rows.rows ? rows.Label(t + step) : rows.ignore_index;
    const bool next_counts = rows.Counts(next_label);
    const bool owns = counts && Owns<kThreads, N>(label - begin, whole, classes);
    const float target = owns ? cuda::ToFloat(row[label]) : 0;
    Partial whole_row;
    if (counts) {
      whole_row = sums.Sum(part.part());
    } else {
      SkipRow<kThreads, N>(rows, t, label, dx, classes, rank == 0 && threadIdx.x == 0);
    }
    const RowResult result(rows, whole_row);
    if (owns) rows.loss[t] = result.Loss(target, whole_row.sum);
    // This row's gradients and, beside them, the next one's sums.
    part = {};
    const bool writes = counts && dx != nullptr;
    int place = ring.Place(0), next_place = ring.Place(rows.groups);
    for (int g = 0, j = RowRing::First(); g < rows.groups; ++g, j += RowRing::kGroupStep) {
      if (writes) {
        ring.ForEach(place, j,
                     [&](int at, const T* vector) { WriteGradients<N>(result, vector, dx + at); });
      }
      ring.Refill();
      if (next_counts) {
        ring.WaitNext();
        add(next_place, j, &part);
      }
      place = ring.NextPlace(place);
      next_place = ring.NextPlace(next_place);
    }
    if (writes) {
      for (int j = whole + static_cast<int>(threadIdx.x); j < classes; j += kThreads)
        WriteGradients<1>(result, row + begin + j, dx + j);
      if (owns) dx[label - begin] = cuda::FromFloat<T>(result.LabelGradient(target));
    }
    if (next_counts) add_last(row + step * rows.logits_stride, &part);
    label = next_label;
    counts = next_counts;
  }
}

constexpr int kRereadThreads = 512;

// A block a row, which it reads twice; the second time from the L2 cache, where rows are short. N:
// elements of a vector, or 1 where rows are not aligned.
template <typename T, bool kSmooths, int N>
__global__ void __launch_bounds__(kRereadThreads, 2)
    CrossEntropyRereadKernel(const __grid_constant__ Rows rows) {
  constexpr int kThreads = kRereadThreads, kStep = kThreads * N;
  cuda::StartAfterEarlierKernels();
  const int64_t t = blockIdx.x;
  const T* x = static_cast<const T*>(rows.logits) + t * rows.logits_stride;
  T* dx =
      rows.dlogits == nullptr ? nullptr : static_cast<T*>(rows.dlogits) + t * rows.dlogits_stride;
  const int32_t label = rows.Label(t);
  if (!rows.Counts(label)) {
    SkipRow<kThreads, N>(rows, t, label, dx, rows.classes, threadIdx.x == 0);
    return;
  }
  const int64_t whole = rows.classes / N * N;
  const bool owns = Owns<kThreads, N>(label, whole, rows.classes);
  const float target = owns ? cuda::ToFloat(x[label]) : 0;
  Accumulator<kSmooths> part;
#pragma unroll 4
  for (int64_t j = int64_t{threadIdx.x} * N; j < whole; j += kStep) {
    float values[N];
    cuda::Load<N>(x + j, values);
    part.Add(values);
  }
  for (int64_t j = whole + threadIdx.x; j < rows.classes; j += kThreads) {
    const float value[1] = {cuda::ToFloat(x[j])};
    part.Add(value);
  }
  using Reduction = BlockReduction<kThreads / cuda::kWarp>;
  __shared__ Partial parts[Reduction::kShared];
  const Partial whole_row = Reduction(parts).Sum(part.part());
  const RowResult result(rows, whole_row);
  if (owns) rows.loss[t] = result.Loss(target, whole_row.sum);
  if (dx == nullptr) return;
#pragma unroll 2
  for (int64_t j = int64_t{threadIdx.x} * N; j < whole; j += kStep)
    WriteGradients<N>(result, x + j, dx + j);
  for (int64_t j = whole + threadIdx.x; j < rows.classes; j += kThreads)
    WriteGradients<1>(result, x + j, dx + j);
  if (owns) dx[label] = cuda::FromFloat<T>(result.LabelGradient(target));
}

// How many clusters of `size` blocks (blocks by themselves, where it is 1) run at a time on the
// device; 0: none.
template <typename Block>
StatusOr<int> Resident(void (*kernel)(Rows), int size, int num_sms) {
  TE_ASSIGN_OR_RETURN(const int64_t most, cuda::MostSharedMemory());
  cudaFuncAttributes attributes{};
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaFuncGetAttributes(&attributes, kernel),
                                    "cross_entropy: the kernel's attributes"));
  if (Block::kRingBytes + static_cast<int64_t>(attributes.sharedSizeBytes) > most) return 0;
  TE_RETURN_IF_ERROR(cuda::ToStatus(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Block::kRingBytes),
      "cross_entropy: shared memory"));
  int count = 0;
  if (size == 1) {
    TE_RETURN_IF_ERROR(cuda::ToStatus(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                                          &count, kernel, Block::kThreads, Block::kRingBytes),
                                      "cross_entropy: resident blocks"));
    return count * num_sms;
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned int>(size), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned int>(size));
  config.blockDim = dim3(Block::kThreads);
  config.dynamicSmemBytes = Block::kRingBytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaOccupancyMaxActiveClusters(&count, kernel, &config),
                                    "cross_entropy: resident clusters"));
  return count;
}

template <typename T, bool kSmooths, int N>
Status Reread(const Exec& exec, const Rows& rows) {
  cuda::LaunchOverlapping(exec, CrossEntropyRereadKernel<T, kSmooths, N>,
                          dim3(static_cast<unsigned int>(rows.rows)), dim3(kRereadThreads), {},
                          rows);
  return cuda::LaunchStatus("cross_entropy");
}

// Whether a row's parts fit the rings of that many blocks; if so, says how they lie.
template <typename T, typename Block>
bool Fits(int blocks, Rows* rows) {
  constexpr int64_t N = cuda::kLanes<T>, kGroup = int64_t{Block::kThreads} * Block::kVectors;
  const int64_t vectors = (rows->classes + N - 1) / N;
  const int64_t of_block = (vectors + blocks - 1) / blocks;
  const int64_t groups = (of_block + kGroup - 1) / kGroup;
  if (groups + Block::kAhead > Block::kGroups) return false;
  rows->chunk = of_block * N;
  rows->groups = static_cast<int>(groups);
  return true;
}

// False where the rows or the device do not suit blocks, or clusters of `size` of them, that stay.
template <typename T, bool kSmooths, bool kCluster, typename Block>
StatusOr<bool> Launch(const Exec& exec, Rows rows, int num_sms, int size) {
  if (!Fits<T, Block>(size, &rows)) return false;
  const auto kernel = CrossEntropyKernel<T, kSmooths, kCluster, Block>;
  TE_ASSIGN_OR_RETURN(const int resident, Resident<Block>(kernel, size, num_sms));
  if (resident == 0) return false;
  const auto grid = static_cast<unsigned int>(std::min<int64_t>(rows.rows, resident) * size);
  cuda::LaunchOverlapping(exec, kernel, dim3(grid), dim3(Block::kThreads),
                          {.shared_bytes = Block::kRingBytes,
                           .cluster = kCluster ? static_cast<unsigned int>(size) : 0},
                          rows);
  TE_RETURN_IF_ERROR(cuda::LaunchStatus("cross_entropy"));
  return true;
}

template <typename T, bool kSmooths>
Status Aligned(const Exec& exec, const Rows& rows) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  TE_ASSIGN_OR_RETURN(bool launched,
                      (Launch<T, kSmooths, false, SingleBlock>(exec, rows, state->num_sms(), 1)));
  const int most = state->compute_capability() >= 90 ? kMaxCluster : 1;
  for (int size = 2; size <= most && !launched; size *= 2) {
    TE_ASSIGN_OR_RETURN(
        launched, (Launch<T, kSmooths, true, BlockOfCluster>(exec, rows, state->num_sms(), size)));
  }
  return launched ? OkStatus() : Reread<T, kSmooths, cuda::kLanes<T>>(exec, rows);
}

template <typename T, bool kSmooths>
Status Run(const Exec& exec, const CrossEntropyArgs& args) {
  const bool writes = args.dlogits.defined();
  const Rows rows = {.logits = args.logits.data(),
                     .dlogits = args.dlogits.data(),
                     .labels = args.labels.as<int32_t>(),
                     .loss = args.loss.as<float>(),
                     .logits_stride = args.logits.stride(0),
                     .dlogits_stride = writes ? args.dlogits.stride(0) : 0,
                     .rows = args.logits.dim(0),
                     .classes = args.logits.dim(1),
                     .chunk = 0,
                     .groups = 0,
                     .ignore_index = args.ignore_index,
                     .label_smoothing = args.label_smoothing};
  constexpr int kN = cuda::kLanes<T>;
  const bool aligned = cuda::Aligned<kN>(args.logits.as<T>(), rows.logits_stride) &&
                       (!writes || cuda::Aligned<kN>(args.dlogits.as<T>(), rows.dlogits_stride));
  return aligned ? Aligned<T, kSmooths>(exec, rows) : Reread<T, kSmooths, 1>(exec, rows);
}

template <typename T>
Status BySmoothing(const Exec& exec, const CrossEntropyArgs& args) {
  return args.label_smoothing != 0 ? Run<T, true>(exec, args) : Run<T, false>(exec, args);
}

}  // namespace
}  // namespace cross_entropy_cuda

Status CrossEntropyCuda(const Exec& exec, const CrossEntropyArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCrossEntropy(args));
  const auto bytes = args.logits.bytes() + (args.dlogits.defined() ? args.dlogits.bytes() : 0) +
                     args.labels.bytes() + args.loss.bytes();
  Record(exec, "cross_entropy", "cross_entropy_cuda", args.logits.dtype(),
         static_cast<int64_t>(bytes));
  if (args.logits.dim(0) == 0) return OkStatus();
  return args.logits.dtype() == DType::kFloat32
             ? cross_entropy_cuda::BySmoothing<float>(exec, args)
             : cross_entropy_cuda::BySmoothing<bfloat16>(exec, args);
}

}  // namespace te
