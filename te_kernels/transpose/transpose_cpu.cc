#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/transpose/transpose.h"

namespace te {

// By squares, whose lines stay in L1.
Status TransposeCpu(const Exec& exec, const TransposeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateTranspose(args));
  constexpr int64_t kSquare = 64;
  const int64_t rows = args.x.dim(0), columns = args.x.dim(1);
  const uint8_t* x = args.x.as<uint8_t>();
  uint8_t* y = args.y.as<uint8_t>();
  ParallelFor(exec, (columns + kSquare - 1) / kSquare, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row0 = 0; row0 < rows; row0 += kSquare) {
      for (int64_t c = begin * kSquare; c < std::min(end * kSquare, columns); ++c) {
        for (int64_t r = row0; r < std::min(row0 + kSquare, rows); ++r)
          y[c * rows + r] = x[r * columns + c];
      }
    }
  });
  return OkStatus();
}

}  // namespace te
