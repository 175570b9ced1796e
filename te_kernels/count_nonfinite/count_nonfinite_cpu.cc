#include <algorithm>
#include <atomic>

#include "te_kernels/base/parallel.h"
#include "te_kernels/count_nonfinite/count_nonfinite.h"

namespace te {
namespace {

constexpr int64_t kChunk = int64_t{1} << 16;  // elements: counts of one fit 32 bits

uint32_t Magnitude(uint32_t bits) { return bits & 0x7fffffffu; }
uint32_t Magnitude(uint16_t bits) { return static_cast<uint32_t>(bits & 0x7fffu) << 16; }

template <typename Word>
void Count(const Exec& exec, const CountNonfiniteArgs& args) {
  const Word* x = static_cast<const Word*>(args.x.data());
  const int64_t n = args.x.elements();
  const uint32_t least = LeastNonfiniteBits(args.as);
  const std::atomic_ref<int64_t> count(*args.count);
  ParallelFor(exec, (n + kChunk - 1) / kChunk, 4, [&](int64_t begin, int64_t end) {
    int64_t found = 0;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t stop = std::min(n, (chunk + 1) * kChunk);
      uint32_t in_chunk = 0;
#pragma omp simd reduction(+ : in_chunk)
      for (int64_t i = chunk * kChunk; i < stop; ++i) in_chunk += Magnitude(x[i]) >= least ? 1 : 0;
      found += in_chunk;
    }
    count.fetch_add(found, std::memory_order_relaxed);
  });
}

}  // namespace

Status CountNonfiniteCpu(const Exec& exec, const CountNonfiniteArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCountNonfinite(args));
  args.x.dtype() == DType::kFloat32 ? Count<uint32_t>(exec, args) : Count<uint16_t>(exec, args);
  return OkStatus();
}

}  // namespace te
