#include <algorithm>
#include <vector>

#include "te_kernels/attention/attention_rows.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/softmax/softmax.h"

namespace te {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

int64_t RowsPerThread(int64_t columns) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, columns));
}

template <typename T>
Status ForwardRows(const Exec& exec, const SoftmaxForwardArgs& args) {
  const int64_t heads = args.x.dim(1), queries = args.x.dim(2), keys = args.x.dim(3);
  const int64_t rows = args.x.dim(0) * heads * queries;
  // A row of float32 for each thread: bfloat16 rows are summed in it.
  ArenaScope scope(exec.scratch);
  float* scratch = nullptr;
  TE_RETURN_IF_ERROR(AllocateArray(exec, std::max(1, exec.num_threads) * keys, &scratch));
  ParallelFor(exec, rows, RowsPerThread(keys), [&](int64_t begin, int64_t end) {
    float* row = scratch + ThreadIndex() * keys;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t query = r % queries, head = r / queries % heads, batch = r / queries / heads;
      const T* x = args.x.as<T>() + r * keys;
      simd::ForEachVector(
          keys, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
            simd::Store(simd::Load(x + j, n), row + j, n);
          });
      SoftmaxRow(MaskedRow(args.mask, batch, head, query, queries, keys), args.scale, 0, keys, row);
      RoundRow(row, keys, args.y.as<T>() + r * keys);
    }
  });
  return OkStatus();
}

template <typename T>
void BackwardRows(const Exec& exec, const SoftmaxBackwardArgs& args) {
  const int64_t keys = args.y.dim(3);
  const int64_t rows = args.y.dim(0) * args.y.dim(1) * args.y.dim(2);
  ParallelFor(exec, rows, RowsPerThread(keys), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* y = args.y.as<T>() + r * keys;
      const T* dy = args.dy.as<T>() + r * keys;
      T* dx = args.dx.as<T>() + r * keys;
      simd::Floats sums = {};
      simd::ForEachVector(
          keys, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
            sums += simd::Load(y + j, n) * simd::Load(dy + j, n);
          });
      const float dot = simd::Sum(sums);
      simd::ForEachVector(
          keys, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
            simd::Store(simd::Load(y + j, n) * (simd::Load(dy + j, n) - dot) * args.scale, dx + j,
                        n);
          });
    }
  });
}

}  // namespace

Status SoftmaxForwardCpu(const Exec& exec, const SoftmaxForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSoftmaxForward(args));
  if (args.x.elements() == 0) return OkStatus();
  return args.x.dtype() == DType::kFloat32 ? ForwardRows<float>(exec, args)
                                           : ForwardRows<bfloat16>(exec, args);
}

Status SoftmaxBackwardCpu(const Exec& exec, const SoftmaxBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateSoftmaxBackward(args));
  if (args.y.elements() == 0) return OkStatus();
  args.y.dtype() == DType::kFloat32 ? BackwardRows<float>(exec, args)
                                    : BackwardRows<bfloat16>(exec, args);
  return OkStatus();
}

}  // namespace te
