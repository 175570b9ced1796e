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

// As in rms_norm_cpu.cc, the loop that writes a row also reduces the next one.
// y and x, or dx and dy or add, may be one buffer: a vector is read before it is written.

template <typename T>
float SumOf(const T* x, int64_t hidden) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(
      hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA { sums[k] += Load(x + h, n); });
  return simd::Sum(sums);
}

// The variance takes a pass of its own over a row that lies in the nearest cache: the one-pass
// formula cancels.
template <typename T>
float CenteredSquareSum(const T* x, float mean, int64_t hidden) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    Floats centered = Load(x + h, n) - mean;
    for (int64_t i = n; i < simd::kLanes; ++i) centered[i] = 0;  // past the end it is -mean
    sums[k] += centered * centered;
  });
  return simd::Sum(sums);
}

// Returns SumOf(next).
template <typename T>
float ForwardRow(const T* x, const T* next, const float* g, const float* beta, float mean,
                 float rstd, int64_t hidden, T* y) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    sums[k] += Load(next + h, n);
    Store((Load(x + h, n) - mean) * rstd * Load(g + h, n) + Load(beta + h, n), y + h, n);
  });
  return simd::Sum(sums);
}

template <typename T>
struct Row {
  const T* dy;
  const T* x;
  const T* add;
  T* dx;
  float mean;
  float rstd;
};

struct Sums {
  float w;
  float w_centered;  // of w (x - mean)
};

template <typename T>
Sums SumsOf(const Row<T>& row, const float* g, int64_t hidden) {
  Floats sums[4] = {}, dots[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Floats w = Load(row.dy + h, n) * Load(g + h, n);
    sums[k] += w;
    dots[k] += w * (Load(row.x + h, n) - row.mean);
  });
  return {simd::Sum(sums), simd::Sum(dots)};
}

// Returns SumsOf(next).
template <typename T, bool kAdd, bool kPartial>
Sums BackwardRow(const Row<T>& row, const Row<T>& next, const float* g, Sums given, int64_t hidden,
                 float* gamma_partial, float* beta_partial) {
  const float mean = row.mean, rstd = row.rstd;
  const float mean_w = given.w / static_cast<float>(hidden);
  const float mean_dot = given.w_centered * rstd / static_cast<float>(hidden);  // of w xhat
  Floats sums[4] = {}, dots[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Floats weight = Load(g + h, n);
    const Floats next_w = Load(next.dy + h, n) * weight;
    sums[k] += next_w;
    dots[k] += next_w * (Load(next.x + h, n) - next.mean);
    const Floats gradient = Load(row.dy + h, n);
    const Floats xhat = (Load(row.x + h, n) - mean) * rstd;
    Floats out = (gradient * weight - mean_w - xhat * mean_dot) * rstd;
    if constexpr (kAdd) out += Load(row.add + h, n);
    if constexpr (kPartial) {
      Store(Load(gamma_partial + h, n) + gradient * xhat, gamma_partial + h, n);
      Store(Load(beta_partial + h, n) + gradient, beta_partial + h, n);
    }
    Store(out, row.dx + h, n);
  });
  return {simd::Sum(sums), simd::Sum(dots)};
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
    const auto row = [&](int64_t t) { return args.x.as<T>() + t * args.x.stride(0); };
    const auto n = static_cast<float>(hidden);
    float sum = SumOf(row(begin), hidden);
    for (int64_t t = begin; t < end; ++t) {
      const float mean = sum / n;
      const float variance = CenteredSquareSum(row(t), mean, hidden) / n;
      const float rstd = 1.0f / std::sqrt(variance + args.epsilon);
      sum = ForwardRow(row(t), row(std::min(t + 1, end - 1)), g, beta, mean, rstd, hidden,
                       y.as<T>() + t * y.stride(0));
      if (args.rstd.defined()) {
        args.mean.as<float>()[t] = mean;
        args.rstd.as<float>()[t] = rstd;
      }
    }
  });
  return OkStatus();
}

template <typename T, bool kAdd, bool kPartial>
void BackwardRows(const LayerNormBackwardArgs& args, const float* g, int64_t begin, int64_t end,
                  float* gamma_partial, float* beta_partial) {
  const TensorView& dx = args.dx.dense;
  const int64_t hidden = args.x.dim(1);
  const auto row = [&](int64_t t) {
    return Row<T>{.dy = args.dy.as<T>() + t * args.dy.stride(0),
                  .x = args.x.as<T>() + t * args.x.stride(0),
                  .add = kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr,
                  .dx = dx.as<T>() + t * dx.stride(0),
                  .mean = args.mean.as<float>()[t],
                  .rstd = args.rstd.as<float>()[t]};
  };
  Sums sums = SumsOf(row(begin), g, hidden);
  for (int64_t t = begin; t < end; ++t) {
    sums = BackwardRow<T, kAdd, kPartial>(row(t), row(std::min(t + 1, end - 1)), g, sums, hidden,
                                          gamma_partial, beta_partial);
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
