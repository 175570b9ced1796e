#include "te_kernels/cuda/elementwise.cuh"
#include "te_kernels/multiply/multiply.h"

namespace te {
namespace {

struct Product {
  __device__ float operator()(float a, float b) const { return a * b; }
};

template <typename T>
Status Run(const Exec& exec, const MultiplyArgs& args) {
  return cuda::LaunchElementwise(exec, "multiply", args.out.elements(), Product(), args.out.as<T>(),
                                 args.a.as<T>(), args.b.as<T>());
}

}  // namespace

Status MultiplyCuda(const Exec& exec, const MultiplyArgs& args) {
  TE_RETURN_IF_ERROR(ValidateMultiply(args));
  Record(exec, "multiply", "multiply_cuda", args.out.dtype(),
         3 * static_cast<int64_t>(args.out.bytes()));
  return args.out.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
