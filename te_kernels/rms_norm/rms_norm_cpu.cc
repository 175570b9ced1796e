#include <algorithm>
#include <cmath>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/rms_norm/norm_rows.h"
#include "te_kernels/rms_norm/rms_norm.h"

namespace te {
namespace {

using simd::Floats;
using simd::Load;
using simd::Store;

// y and x may be one buffer: a vector is read before it is written.
template <typename T>
float ForwardRow(const T* x, const float* g, int64_t hidden, float epsilon, T* y) {
  // Two sums: one would wait for the multiply-add before it.
  Floats square_sum[2] = {};
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats value = Load(x + h, n);
    const Floats sum = square_sum[0] + value * value;
    square_sum[0] = square_sum[1];
    square_sum[1] = sum;
  });
  const float mean = simd::Sum(square_sum[0] + square_sum[1]) / static_cast<float>(hidden);
  const float rstd = 1.0f / std::sqrt(mean + epsilon);
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    Store(Load(x + h, n) * rstd * Load(g + h, n), y + h, n);
  });
  return rstd;
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRow(const T* dy, const T* x, const float* g, float rstd, const T* add, int64_t hidden,
                 T* dx, float* partial) {
  Floats sums[2] = {};  // of w x
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats sum = sums[0] + Load(dy + h, n) * Load(g + h, n) * Load(x + h, n);
    sums[0] = sums[1];
    sums[1] = sum;
  });
  const float mean = simd::Sum(sums[0] + sums[1]) * rstd / static_cast<float>(hidden);  // of w xhat
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats gradient = Load(dy + h, n);
    const Floats xhat = Load(x + h, n) * rstd;
    Floats out = (gradient * Load(g + h, n) - xhat * mean) * rstd;
    if constexpr (kAdd) out += Load(add + h, n);
    if constexpr (kPartial) Store(Load(partial + h, n) + gradient * xhat, partial + h, n);
    Store(out, dx + h, n);
  });
}

template <typename T>
Status Forward(const Exec& exec, const RmsNormForwardArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  const TensorView& y = args.y.dense;
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  ParallelFor(exec, tokens, norm::RowGrain(hidden), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float rstd = ForwardRow(args.x.as<T>() + t * args.x.stride(0), g, hidden, args.epsilon,
                                    y.as<T>() + t * y.stride(0));
      if (args.rstd.defined()) args.rstd.as<float>()[t] = rstd;
    }
  });
  return OkStatus();
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRows(const RmsNormBackwardArgs& args, const float* g, int64_t begin, int64_t end,
                  float* partial) {
  const TensorView& dx = args.dx.dense;
  for (int64_t t = begin; t < end; ++t) {
    BackwardRow<T, kAdd, kPartial>(
        args.dy.as<T>() + t * args.dy.stride(0), args.x.as<T>() + t * args.x.stride(0), g,
        args.rstd.as<float>()[t], kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr,
        args.x.dim(1), dx.as<T>() + t * dx.stride(0), partial);
  }
}

template <typename T>
Status Backward(const Exec& exec, const RmsNormBackwardArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  const norm::RowChunks chunks(tokens);
  float* partials = nullptr;
  if (args.dgamma.defined()) {
    TE_ASSIGN_OR_RETURN(TensorView buffer,
                        exec.scratch->Allocate(DType::kFloat32, {chunks.count, hidden}));
    partials = buffer.as<float>();
  }
  const bool add = args.add.defined();
  const int64_t grain = std::max<int64_t>(1, norm::RowGrain(hidden) / chunks.rows);
  ParallelFor(exec, chunks.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * chunks.rows, last = std::min(tokens, first + chunks.rows);
      if (partials == nullptr) {
        add ? BackwardRows<T, true, false>(args, g, first, last, nullptr)
            : BackwardRows<T, false, false>(args, g, first, last, nullptr);
        continue;
      }
      float* partial = partials + c * hidden;
      std::fill(partial, partial + hidden, 0.0f);
      add ? BackwardRows<T, true, true>(args, g, first, last, partial)
          : BackwardRows<T, false, true>(args, g, first, last, partial);
    }
  });
  if (partials != nullptr) {
    norm::CombinePartials(exec, partials, chunks.count, hidden, args.accumulate_dgamma,
                          args.dgamma);
  }
  return OkStatus();
}

}  // namespace

Status RmsNormForwardCpu(const Exec& exec, const RmsNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormForward(args));
  const ArenaScope scope(exec.scratch);
  return args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, args)
                                           : Forward<bfloat16>(exec, args);
}

Status RmsNormBackwardCpu(const Exec& exec, const RmsNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRmsNormBackward(args));
  const ArenaScope scope(exec.scratch);
  return args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                           : Backward<bfloat16>(exec, args);
}

}  // namespace te
