#include <algorithm>
#include <cmath>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/layer_norm/layer_norm.h"
#include "te_kernels/rms_norm/norm_rows.h"

namespace te {
namespace {

using simd::Floats;
using simd::Load;
using simd::Store;

struct Moments {
  float mean;
  float rstd;
};

// The variance takes a second pass over a row that lies in the nearest cache: the one-pass formula
// cancels.
template <typename T>
Moments ForwardRow(const T* x, const float* g, const float* beta, int64_t hidden, float epsilon,
                   T* y) {
  // Two sums each: one would wait for the addition before it.
  Floats sums[2] = {};
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats sum = sums[0] + Load(x + h, n);
    sums[0] = sums[1];
    sums[1] = sum;
  });
  const float mean = simd::Sum(sums[0] + sums[1]) / static_cast<float>(hidden);
  Floats squares[2] = {};
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    Floats centered = Load(x + h, n) - mean;
    if (n < simd::kLanes) {  // lanes past the end hold -mean
      for (int64_t i = n; i < simd::kLanes; ++i) centered[i] = 0;
    }
    const Floats sum = squares[0] + centered * centered;
    squares[0] = squares[1];
    squares[1] = sum;
  });
  const float variance = simd::Sum(squares[0] + squares[1]) / static_cast<float>(hidden);
  const float rstd = 1.0f / std::sqrt(variance + epsilon);
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    Store((Load(x + h, n) - mean) * rstd * Load(g + h, n) + Load(beta + h, n), y + h, n);
  });
  return {mean, rstd};
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRow(const T* dy, const T* x, const float* g, Moments moments, const T* add,
                 int64_t hidden, T* dx, float* gamma_partial, float* beta_partial) {
  const float mean = moments.mean, rstd = moments.rstd;
  Floats sum = {}, dot = {};  // of w, and of w xhat
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats w = Load(dy + h, n) * Load(g + h, n);
    sum += w;
    dot += w * ((Load(x + h, n) - mean) * rstd);
  });
  const float mean_w = simd::Sum(sum) / static_cast<float>(hidden);
  const float mean_dot = simd::Sum(dot) / static_cast<float>(hidden);
  simd::ForEachVector(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Floats gradient = Load(dy + h, n);
    const Floats xhat = (Load(x + h, n) - mean) * rstd;
    Floats out = (gradient * Load(g + h, n) - mean_w - xhat * mean_dot) * rstd;
    if constexpr (kAdd) out += Load(add + h, n);
    if constexpr (kPartial) {
      Store(Load(gamma_partial + h, n) + gradient * xhat, gamma_partial + h, n);
      Store(Load(beta_partial + h, n) + gradient, beta_partial + h, n);
    }
    Store(out, dx + h, n);
  });
}

template <typename T>
Status Forward(const Exec& exec, const LayerNormForwardArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  const TensorView& y = args.y.dense;
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  TE_ASSIGN_OR_RETURN(const float* beta, norm::ParameterAsFloat(exec, args.beta, 0.0f));
  ParallelFor(exec, tokens, norm::RowGrain(hidden), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Moments moments = ForwardRow(args.x.as<T>() + t * args.x.stride(0), g, beta, hidden,
                                         args.epsilon, y.as<T>() + t * y.stride(0));
      if (args.rstd.defined()) {
        args.mean.as<float>()[t] = moments.mean;
        args.rstd.as<float>()[t] = moments.rstd;
      }
    }
  });
  return OkStatus();
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRows(const LayerNormBackwardArgs& args, const float* g, int64_t begin, int64_t end,
                  float* gamma_partial, float* beta_partial) {
  const TensorView& dx = args.dx.dense;
  for (int64_t t = begin; t < end; ++t) {
    BackwardRow<T, kAdd, kPartial>(
        args.dy.as<T>() + t * args.dy.stride(0), args.x.as<T>() + t * args.x.stride(0), g,
        {args.mean.as<float>()[t], args.rstd.as<float>()[t]},
        kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr, args.x.dim(1),
        dx.as<T>() + t * dx.stride(0), gamma_partial, beta_partial);
  }
}

template <typename T>
Status Backward(const Exec& exec, const LayerNormBackwardArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  const norm::RowChunks chunks(tokens);
  // A row of partials holds dgamma's, then dbeta's; when only one is wanted the other's are not
  // read.
  float* partials = nullptr;
  if (args.dgamma.defined() || args.dbeta.defined()) {
    TE_ASSIGN_OR_RETURN(TensorView buffer,
                        exec.scratch->Allocate(DType::kFloat32, {chunks.count, 2 * hidden}));
    partials = buffer.as<float>();
  }
  const bool add = args.add.defined();
  const int64_t grain = std::max<int64_t>(1, norm::RowGrain(hidden) / chunks.rows);
  ParallelFor(exec, chunks.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * chunks.rows, last = std::min(tokens, first + chunks.rows);
      if (partials == nullptr) {
        add ? BackwardRows<T, true, false>(args, g, first, last, nullptr, nullptr)
            : BackwardRows<T, false, false>(args, g, first, last, nullptr, nullptr);
        continue;
      }
      float* partial = partials + c * 2 * hidden;
      std::fill(partial, partial + 2 * hidden, 0.0f);
      add ? BackwardRows<T, true, true>(args, g, first, last, partial, partial + hidden)
          : BackwardRows<T, false, true>(args, g, first, last, partial, partial + hidden);
    }
  });
  if (args.dgamma.defined()) {
    norm::CombinePartials(exec, partials, chunks.count, 2 * hidden,
                          args.accumulate_parameter_gradients, args.dgamma);
  }
  if (args.dbeta.defined()) {
    norm::CombinePartials(exec, partials + hidden, chunks.count, 2 * hidden,
                          args.accumulate_parameter_gradients, args.dbeta);
  }
  return OkStatus();
}

}  // namespace

Status LayerNormForwardCpu(const Exec& exec, const LayerNormForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormForward(args));
  const ArenaScope scope(exec.scratch);
  return args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, args)
                                           : Forward<bfloat16>(exec, args);
}

Status LayerNormBackwardCpu(const Exec& exec, const LayerNormBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateLayerNormBackward(args));
  const ArenaScope scope(exec.scratch);
  return args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                           : Backward<bfloat16>(exec, args);
}

}  // namespace te
