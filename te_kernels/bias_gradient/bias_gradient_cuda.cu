#include "te_kernels/bias_gradient/bias_gradient.h"
#include "te_kernels/cuda/column_sums.cuh"

namespace te {
namespace {

template <typename T>
Status Run(const Exec& exec, const BiasGradientArgs& args) {
  const T* dy = args.dy.as<T>();
  const int64_t rows = args.dy.dim(0), columns = args.dy.dim(1), stride = args.dy.stride(0);
  constexpr int kN = cuda::kLanes<T>;
  if (columns % kN == 0 && cuda::Aligned<kN>(dy, stride)) {
    return cuda::SumColumns<kN>(exec, rows, cuda::ColumnsOf<kN, T>{dy, stride}, args.accumulate,
                                args.dbias);
  }
  return cuda::SumColumns<1>(exec, rows, cuda::ColumnsOf<1, T>{dy, stride}, args.accumulate,
                             args.dbias);
}

}  // namespace

Status BiasGradientCuda(const Exec& exec, const BiasGradientArgs& args) {
  TE_RETURN_IF_ERROR(ValidateBiasGradient(args));
  Record(exec, "bias_gradient", "bias_gradient_cuda", args.dy.dtype(),
         static_cast<int64_t>(args.dy.bytes() + args.dbias.bytes() * (args.accumulate ? 2 : 1)));
  return args.dy.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
