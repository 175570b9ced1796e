#include "te_kernels/add/add.h"
#include "te_kernels/cuda/elementwise.cuh"

namespace te {
namespace {

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

template <typename T>
Status Run(const Exec& exec, const AddArgs& args) {
  return cuda::LaunchElementwise(exec, "add", args.out.elements(), Sum(), args.out.as<T>(),
                                 args.a.as<T>(), args.b.as<T>());
}

}  // namespace

Status AddCuda(const Exec& exec, const AddArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAdd(args));
  Record(exec, "add", "add_cuda", args.out.dtype(), 3 * static_cast<int64_t>(args.out.bytes()));
  return args.out.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
