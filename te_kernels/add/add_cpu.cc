#include "te_kernels/add/add.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"

namespace te {
namespace {

constexpr int64_t kGrain = 1 << 15;

template <typename T>
void Run(const Exec& exec, const AddArgs& args) {
  const T* a = args.a.as<T>();
  const T* b = args.b.as<T>();
  T* out = args.out.as<T>();
  ParallelFor(exec, args.a.elements(), kGrain, [&](int64_t begin, int64_t end) {
  // out may be a or b: each element is read before it is written.
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      StoreRounded(LoadFloat(a + i) + LoadFloat(b + i), out + i);
    }
  });
}

}  // namespace

Status AddCpu(const Exec& exec, const AddArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAdd(args));
  if (args.a.dtype() == DType::kFloat32) {
    Run<float>(exec, args);
  } else {
    Run<bfloat16>(exec, args);
  }
  return OkStatus();
}

}  // namespace te
