#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/dropout/dropout.h"

namespace te {
namespace {

constexpr int kThreads = 256;
constexpr int kNumbers = 4;  // of one Philox block

// Four elements a thread, whose random numbers are one block. `bias` and `residual` are null where
// they add nothing. out may be x or residual: each thread reads its elements before it writes them.
template <typename T, bool kVectors>
__global__ void __launch_bounds__(kThreads)
    DropoutKernel(const T* x, const T* bias, const T* residual, float p, RandomState random,
                  int64_t n, int64_t hidden, T* out) {
  cuda::StartAfterEarlierKernels();
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t first = kNumbers * block;
  if (first >= n) return;
  const auto numbers = Philox::Block(random.Resolved(), static_cast<uint64_t>(block));
  const float scale = p < 1 ? 1.0f / (1.0f - p) : 0.0f;
  const int count = static_cast<int>(n - first < kNumbers ? n - first : kNumbers);
  float values[kNumbers], added[kNumbers] = {};
  const bool whole = kVectors && count == kNumbers;
  if (whole) {
    cuda::Load<kNumbers>(x + first, values);
    if (residual != nullptr) cuda::Load<kNumbers>(residual + first, added);
  } else {
    for (int i = 0; i < kNumbers; ++i) {
      values[i] = i < count ? cuda::ToFloat(x[first + i]) : 0.0f;
      if (residual != nullptr && i < count) added[i] = cuda::ToFloat(residual[first + i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
    if (bias != nullptr && i < count) values[i] += cuda::ToFloat(bias[(first + i) % hidden]);
    // A select: what is dropped is 0, were it infinite.
    values[i] = added[i] + (Philox::ToUniform(numbers[i]) >= p ? values[i] * scale : 0.0f);
  }
  if (whole) {
    cuda::Store<kNumbers>(out + first, values);
    return;
  }
  for (int i = 0; i < kNumbers; ++i)
    if (i < count) out[first + i] = cuda::FromFloat<T>(values[i]);
}

template <typename T>
Status Run(const Exec& exec, const char* operation, const DropoutForwardArgs& args) {
  const int64_t n = args.x.elements();
  if (n == 0) return OkStatus();
  const T *x = args.x.as<T>(), *residual = args.residual.as<T>();
  T* out = args.out.as<T>();
  const bool vectors = cuda::Aligned<kNumbers>(x, 0) && cuda::Aligned<kNumbers>(residual, 0) &&
                       cuda::Aligned<kNumbers>(out, 0);
  const auto blocks =
      static_cast<unsigned int>((n + kThreads * kNumbers - 1) / (kThreads * kNumbers));
  const auto kernel = vectors ? DropoutKernel<T, true> : DropoutKernel<T, false>;
  cuda::LaunchOverlapping(exec, kernel, dim3(blocks), dim3(kThreads), {}, x, args.bias.as<T>(),
                          residual, args.p, args.random, n, args.x.dim(1), out);
  return cuda::LaunchStatus(operation);
}

Status Run(const Exec& exec, const char* operation, const char* kernel,
           const DropoutForwardArgs& args) {
  Record(exec, operation, kernel, args.x.dtype(),
         static_cast<int64_t>(args.x.bytes() + args.out.bytes() +
                              (args.residual.defined() ? args.residual.bytes() : 0)));
  return args.x.dtype() == DType::kFloat32 ? Run<float>(exec, operation, args)
                                           : Run<bfloat16>(exec, operation, args);
}

}  // namespace

Status DropoutForwardCuda(const Exec& exec, const DropoutForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDropoutForward(args));
  return Run(exec, "dropout_forward", "dropout_forward_cuda", args);
}

// The forward pass of dout, without bias and residual.
Status DropoutBackwardCuda(const Exec& exec, const DropoutBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDropoutBackward(args));
  return Run(exec, "dropout_backward", "dropout_backward_cuda",
             {.x = args.dout, .p = args.p, .random = args.random, .out = args.dx});
}

}  // namespace te
