#include "te_kernels/batched_gemm/batched_gemm_plain_cuda.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"

namespace te {
namespace {

constexpr int kThreads = 256;

struct Strides {
  int64_t at[4];
};

Strides StridesOf(const ConstTensorView& view) {
  return {{view.stride(0), view.stride(1), view.stride(2), view.stride(3)}};
}

template <typename T, typename D>
__global__ void PlainKernel(int64_t inner, int64_t m, int64_t n, int64_t k, int64_t count,
                            float alpha, float beta, const T* a, Strides sa, const T* b, Strides sb,
                            D* d, Strides sd) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t column = i % n, row = i / n % m, b1 = i / (n * m) % inner, b0 = i / (n * m * inner);
  const T* from_a = a + b0 * sa.at[0] + b1 * sa.at[1] + row * sa.at[2];
  const T* from_b = b + b0 * sb.at[0] + b1 * sb.at[1] + column * sb.at[3];
  float sum = 0;
  for (int64_t j = 0; j < k; ++j)
    sum += cuda::ToFloat(from_a[j * sa.at[3]]) * cuda::ToFloat(from_b[j * sb.at[2]]);
  D* to = d + b0 * sd.at[0] + b1 * sd.at[1] + row * sd.at[2] + column;
  float value = alpha * sum;
  if (beta != 0) value += beta * cuda::ToFloat(*to);
  *to = cuda::FromFloat<D>(value);
}

template <typename T, typename D>
Status Run(const Exec& exec, const BatchedGemmArgs& args) {
  const int64_t count = args.d.elements();
  const auto blocks = static_cast<unsigned int>((count + kThreads - 1) / kThreads);
  PlainKernel<T, D><<<blocks, kThreads, 0, cuda::StreamOf(exec)>>>(
      args.d.dim(1), args.d.dim(2), args.d.dim(3), args.a.dim(3), count, args.alpha, args.beta,
      args.a.as<T>(), StridesOf(args.a), args.b.as<T>(), StridesOf(args.b), args.d.as<D>(),
      StridesOf(args.d));
  return cuda::LaunchStatus("batched_gemm_plain");
}

}  // namespace

Status BatchedGemmPlainCuda(const Exec& exec, const BatchedGemmArgs& args) {
  Record(exec, "batched_gemm", "batched_gemm_plain_cuda", args.a.dtype(),
         static_cast<int64_t>(args.a.bytes() + args.b.bytes() + args.d.bytes()));
  if (args.a.dtype() == DType::kFloat32) return Run<float, float>(exec, args);
  return args.d.dtype() == DType::kFloat32 ? Run<bfloat16, float>(exec, args)
                                           : Run<bfloat16, bfloat16>(exec, args);
}

}  // namespace te
