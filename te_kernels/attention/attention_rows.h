// Pieces that the forward and backward passes of the CPU backend's attention share.
#pragma once

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/simd.h"

namespace te {

// [rows, d] of one head: positions [begin, begin + rows).
template <typename View>
View Head(const View& x, int64_t batch, int64_t head, int64_t begin, int64_t rows) {
  return x.Select(0, batch).Select(1, head).Slice(0, begin, begin + rows);
}

template <typename T>
Status AllocateArray(const Exec& exec, int64_t elements, T** out) {
  TE_ASSIGN_OR_RETURN(void* data,
                      exec.scratch->Allocate(static_cast<size_t>(elements) * sizeof(T)));
  *out = static_cast<T*>(data);
  return OkStatus();
}

inline int ThreadIndex() { return omp_get_thread_num(); }

// Statuses of parallel tasks: each thread keeps its first failure.
class TaskErrors {
 public:
  explicit TaskErrors(int threads) : errors_(threads) {}
  void Keep(Status status) {
    Status& mine = errors_[ThreadIndex()];
    if (!status.ok() && mine.ok()) mine = std::move(status);
  }
  Status First() const {
    for (const Status& error : errors_) TE_RETURN_IF_ERROR(error);
    return OkStatus();
  }

 private:
  std::vector<Status> errors_;
};

// Number of the first random value of a query's row: attention.h's formula.
inline uint64_t RandomIndex(const ConstTensorView& q, int64_t num_keys, int64_t batch, int64_t head,
                            int64_t query) {
  return static_cast<uint64_t>(((batch * q.dim(2) + head) * q.dim(1) + query) * num_keys);
}

template <typename T>
void RoundRow(const float* from, int64_t count, T* to) {
  simd::ForEachVector(
      count, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        simd::Store(simd::Load(from + j, n), to + j, n);
      });
}

// Overwrites scores [keys] (raw products with the keys key, key + 1, ...) by -infinity where
// masked.
inline void MaskRow(const MaskedRow& mask, int64_t key, int64_t keys, float* scores) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  const int64_t begin = std::min(std::max<int64_t>(mask.begin() - key, 0), keys);
  const int64_t end = std::max(begin, std::min(mask.end() - key, keys));
  std::fill(scores, scores + begin, kMasked);
  std::fill(scores + end, scores + keys, kMasked);
  if (!mask.has_holes()) return;
  for (int64_t j = begin; j < end; ++j) {
    if (mask.Masked(key + j)) scores[j] = kMasked;
  }
}

// scores -> softmax(scale * scores) over the visible keys, 0 elsewhere. Returns log sum exp;
// -infinity when all are masked. scale > 0.
inline float SoftmaxRow(const MaskedRow& mask, float scale, int64_t key, int64_t keys,
                        float* scores) {
  MaskRow(mask, key, keys, scores);
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  simd::Floats most = simd::Broadcast(0.0f) + kNone;
  simd::ForEachVector(
      keys, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
        simd::Floats x = simd::Load(scores + j, count);
        x = simd::FirstLanes(x, count, kNone);
        most = x > most ? x : most;
      });
  const float largest = simd::Max(most);
  if (largest == kNone) {
    std::fill_n(scores, keys, 0.0f);
    return largest;
  }
  const float offset = largest * scale;
  simd::Floats sums = {};
  simd::ForEachVector(
      keys, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
        simd::Floats e = simd::Exp(simd::Load(scores + j, count) * scale - offset);
        e = simd::FirstLanes(e, count, 0.0f);
        simd::Store(e, scores + j, count);
        sums += e;
      });
  const float sum = simd::Sum(sums);
  const float inverse = 1.0f / sum;
  simd::ForEachVector(
      keys, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
        simd::Store(simd::Load(scores + j, count) * inverse, scores + j, count);
      });
  return offset + std::log(sum);
}

// x[j] = keep(first + j) ? x[j] / (1 - p) : 0.
inline void DropRow(const RandomState& random, uint64_t first, float p, int64_t count, float* x) {
  const float scale = 1.0f / (1.0f - p);
  std::array<uint32_t, 4> numbers{};
  for (int64_t j = 0; j < count; ++j) {
    const uint64_t index = first + static_cast<uint64_t>(j);
    if (j == 0 || index % 4 == 0) numbers = Philox::Block(random, index / 4);
    x[j] = Philox::ToUniform(numbers[index % 4]) >= p ? x[j] * scale : 0.0f;
  }
}

}  // namespace te
