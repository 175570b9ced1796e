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

// A row needs its reduction before it is written. So that memory rests in neither phase, the loop
// that writes a row also reduces the next one, which is thereby fetched; the first row of a
// thread's range is reduced alone. y and x, or dx and dy or add, may be one buffer: a vector is
// read before it is written.

template <typename T>
float SquareSum(const T* x, int64_t hidden) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Floats value = Load(x + h, n);
    sums[k] += value * value;
  });
  return simd::Sum(sums);
}

// Returns SquareSum(next).
template <typename T>
float ForwardRow(const T* x, const T* next, const float* g, float rstd, int64_t hidden, T* y) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Floats value = Load(next + h, n);
    sums[k] += value * value;
    Store(Load(x + h, n) * rstd * Load(g + h, n), y + h, n);
  });
  return simd::Sum(sums);
}

template <typename T>
struct Row {
  const T* dy;
  const T* x;
  const T* add;
  T* dx;
  float rstd;
};

// The sum of w x.
template <typename T>
float Dot(const Row<T>& row, const float* g, int64_t hidden) {
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    sums[k] += Load(row.dy + h, n) * Load(g + h, n) * Load(row.x + h, n);
  });
  return simd::Sum(sums);
}

// Returns Dot(next).
template <typename T, bool kAdd, bool kPartial>
float BackwardRow(const Row<T>& row, const Row<T>& next, const float* g, float dot, int64_t hidden,
                  float* partial) {
  const float rstd = row.rstd;
  const float mean = dot * rstd / static_cast<float>(hidden);  // of w xhat
  Floats sums[4] = {};
  simd::ForEachVectorInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Floats weight = Load(g + h, n);
    sums[k] += Load(next.dy + h, n) * weight * Load(next.x + h, n);
    const Floats gradient = Load(row.dy + h, n);
    const Floats xhat = Load(row.x + h, n) * rstd;
    Floats out = (gradient * weight - xhat * mean) * rstd;
    if constexpr (kAdd) out += Load(row.add + h, n);
    if constexpr (kPartial) Store(Load(partial + h, n) + gradient * xhat, partial + h, n);
    Store(out, row.dx + h, n);
  });
  return simd::Sum(sums);
}

template <typename T>
Status Forward(const Exec& exec, const RmsNormForwardArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  const TensorView& y = args.y.dense;
  TE_ASSIGN_OR_RETURN(
      const float* g,
      norm::ParameterAsFloat(exec, args.gamma, args.zero_centered_gamma ? 1.0f : 0.0f));
  ParallelFor(exec, tokens, norm::RowGrain(hidden), [&](int64_t begin, int64_t end) {
    const auto row = [&](int64_t t) { return args.x.as<T>() + t * args.x.stride(0); };
    float square_sum = SquareSum(row(begin), hidden);
    for (int64_t t = begin; t < end; ++t) {
      const float mean = square_sum / static_cast<float>(hidden);
      const float rstd = 1.0f / std::sqrt(mean + args.epsilon);
      square_sum = ForwardRow(row(t), row(std::min(t + 1, end - 1)), g, rstd, hidden,
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
  const int64_t hidden = args.x.dim(1);
  const auto row = [&](int64_t t) {
    return Row<T>{.dy = args.dy.as<T>() + t * args.dy.stride(0),
                  .x = args.x.as<T>() + t * args.x.stride(0),
                  .add = kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr,
                  .dx = dx.as<T>() + t * dx.stride(0),
                  .rstd = args.rstd.as<float>()[t]};
  };
  float dot = Dot(row(begin), g, hidden);
  for (int64_t t = begin; t < end; ++t) {
    dot = BackwardRow<T, kAdd, kPartial>(row(t), row(std::min(t + 1, end - 1)), g, dot, hidden,
                                         partial);
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
