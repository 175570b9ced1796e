#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/bias_gradient/bias_gradient.h"

namespace te {
namespace {

constexpr int64_t kColumns = 256;  // of one task
// Rows of one partial sum: a column's error grows with kRows + T / kRows instead of T.
constexpr int64_t kRows = 64;

// Loops of our own, not Eigen's colwise().sum(): that one adds all rows into one running sum (the
// error above), and converts bfloat16 one element at a time.
template <typename T, typename B>
void Run(const Exec& exec, const BiasGradientArgs& args) {
  const int64_t rows = args.dy.dim(0);
  const int64_t columns = args.dy.dim(1);
  const T* dy = args.dy.as<T>();
  B* dbias = args.dbias.as<B>();
  const int64_t blocks = (columns + kColumns - 1) / kColumns;
  const int64_t grain = (1 << 16) / (rows * kColumns + 1) + 1;
  ParallelFor(exec, blocks, grain, [&](int64_t begin, int64_t end) {
    float total[kColumns];
    float part[kColumns];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t column = block * kColumns;
      const int64_t width = std::min(kColumns, columns - column);
      for (int64_t n = 0; n < width; ++n) {
        total[n] = args.accumulate ? LoadFloat(dbias + column + n) : 0;
      }
      for (int64_t first = 0; first < rows; first += kRows) {
        const int64_t last = std::min(rows, first + kRows);
        for (int64_t n = 0; n < width; ++n) part[n] = 0;
        for (int64_t t = first; t < last; ++t) {
          const T* row = dy + t * args.dy.stride(0) + column;
          for (int64_t n = 0; n < width; ++n) part[n] += LoadFloat(row + n);
        }
        for (int64_t n = 0; n < width; ++n) total[n] += part[n];
      }
      for (int64_t n = 0; n < width; ++n) StoreRounded(total[n], dbias + column + n);
    }
  });
}

}  // namespace

Status BiasGradientCpu(const Exec& exec, const BiasGradientArgs& args) {
  TE_RETURN_IF_ERROR(ValidateBiasGradient(args));
  if (args.dy.dtype() == DType::kFloat32) {
    Run<float, float>(exec, args);
  } else if (args.dbias.dtype() == DType::kFloat32) {
    Run<bfloat16, float>(exec, args);
  } else {
    Run<bfloat16, bfloat16>(exec, args);
  }
  return OkStatus();
}

}  // namespace te
