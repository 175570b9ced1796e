#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/gemm/gemm_empty_cuda.h"

namespace te {
namespace {

constexpr int kThreads = 256;

// c and bias are null where they add nothing. c may be d.
template <typename T>
__global__ void EmptySumKernel(int64_t rows, int64_t columns, const T* c, int64_t c_stride,
                               const T* bias, T* d, int64_t d_stride) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * columns) return;
  const int64_t row = i / columns, column = i % columns;
  float value = c == nullptr ? 0.0f : cuda::ToFloat(c[row * c_stride + column]);
  if (bias != nullptr) value += cuda::ToFloat(bias[column]);
  d[row * d_stride + column] = cuda::FromFloat<T>(value);
}

template <typename T>
Status Run(const Exec& exec, const GemmArgs& args) {
  const ConstTensorView c = args.c.defined() ? args.c : ConstTensorView(args.d);
  const auto blocks = static_cast<unsigned int>((args.d.elements() + kThreads - 1) / kThreads);
  EmptySumKernel<T><<<blocks, kThreads, 0, cuda::StreamOf(exec)>>>(
      args.d.dim(0), args.d.dim(1), args.beta != 0 ? c.as<T>() : nullptr, c.stride(0),
      args.bias.as<T>(), args.d.as<T>(), args.d.stride(0));
  return cuda::LaunchStatus("gemm without terms");
}

}  // namespace

Status GemmEmptyCuda(const Exec& exec, const GemmArgs& args) {
  Record(exec, "gemm", "gemm_empty_cuda", args.d.dtype(), static_cast<int64_t>(args.d.bytes()));
  return args.d.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

Status GemmAddBiasCuda(const Exec& exec, const GemmArgs& args) {
  Record(exec, "gemm", "gemm_add_bias_cuda", args.d.dtype(),
         2 * static_cast<int64_t>(args.d.bytes()));
  GemmArgs sum;
  sum.bias = args.bias;
  sum.d = args.d;
  sum.beta = 1;
  return args.d.dtype() == DType::kFloat32 ? Run<float>(exec, sum) : Run<bfloat16>(exec, sum);
}

}  // namespace te
