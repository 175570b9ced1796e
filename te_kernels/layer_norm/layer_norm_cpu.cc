#include <algorithm>
#include <cmath>

#include "te_kernels/base/parallel.h"
#include "te_kernels/layer_norm/layer_norm.h"
#include "te_kernels/rms_norm/norm_rows.h"

namespace te {
namespace {

struct Moments {
  float mean;
  float rstd;
};

// Two passes over a row that lies in the first-level cache: the one-pass formula cancels.
template <typename T>
Moments ForwardRow(const T* x, const float* g, const float* beta, int64_t hidden, float epsilon,
                   T* y) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t h = 0; h < hidden; ++h) sum += static_cast<float>(x[h]);
  const float mean = sum / static_cast<float>(hidden);
  float square_sum = 0;
#pragma omp simd reduction(+ : square_sum)
  for (int64_t h = 0; h < hidden; ++h) {
    const float centered = static_cast<float>(x[h]) - mean;
    square_sum += centered * centered;
  }
  const float rstd = 1.0f / std::sqrt(square_sum / static_cast<float>(hidden) + epsilon);
#pragma omp simd
  for (int64_t h = 0; h < hidden; ++h) {
    y[h] = T((static_cast<float>(x[h]) - mean) * rstd * g[h] + beta[h]);
  }
  return {mean, rstd};
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRow(const T* dy, const T* x, const float* g, Moments moments, const T* add,
                 int64_t hidden, T* dx, float* gamma_partial, float* beta_partial) {
  const float mean = moments.mean, rstd = moments.rstd;
  float sum = 0, dot = 0;  // of w, and of w and xhat
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t h = 0; h < hidden; ++h) {
    const float w = static_cast<float>(dy[h]) * g[h];
    sum += w;
    dot += w * ((static_cast<float>(x[h]) - mean) * rstd);
  }
  const float mean_w = sum / static_cast<float>(hidden);
  const float mean_dot = dot / static_cast<float>(hidden);
#pragma omp simd
  for (int64_t h = 0; h < hidden; ++h) {
    const float gradient = static_cast<float>(dy[h]);
    const float xhat = (static_cast<float>(x[h]) - mean) * rstd;
    float out = rstd * (gradient * g[h] - mean_w - xhat * mean_dot);
    if constexpr (kAdd) out += static_cast<float>(add[h]);
    if constexpr (kPartial) {
      gamma_partial[h] += gradient * xhat;
      beta_partial[h] += gradient;
    }
    dx[h] = T(out);
  }
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
