// RMSNorm and LayerNorm on the CPU are one set of loops over rows: kCentered says whether the mean
// is taken off (layer_norm.h) or is zero (rms_norm.h). Floats that a loop reads again and again,
// gamma, beta and the sums of their gradients, lie in scratch in the order of pairs of T's
// (simd.h), padded with zeros to whole pairs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"

namespace te::norm {

using simd::Floats;
using simd::LoadPair;
using simd::Pair;
using simd::StorePair;
using simd::StreamPair;

// Below this many elements a second thread costs more than it brings.
inline constexpr int64_t kElementsPerThread = 1 << 14;

inline int64_t RowGrain(int64_t hidden) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, hidden));
}

inline int64_t Padded(int64_t hidden) {
  return (hidden + simd::kPairLanes - 1) / simd::kPairLanes * simd::kPairLanes;
}

// A parameter as floats in the order of T, `plus` added (1 for a zero-centered gamma).
template <typename T>
StatusOr<const float*> ParameterAsFloat(const Exec& exec, const ConstTensorView& parameter,
                                        float plus) {
  const int64_t n = parameter.dim(0);
  TE_ASSIGN_OR_RETURN(TensorView out, exec.scratch->Allocate(DType::kFloat32, {Padded(n)}));
  float* to = out.as<float>();
  simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
    const Pair value = parameter.dtype() == DType::kBFloat16
                           ? LoadPair(parameter.as<bfloat16>() + i, count)
                           : simd::ToOrderOf<T>(LoadPair(parameter.as<float>() + i, count));
    StorePair({value.even + plus, value.odd + plus}, to + i);
  });
  return static_cast<const float*>(to);
}

// A row needs its reduction before it is written. So that memory rests in neither phase, the loop
// that writes a row also reduces the next one, which is thereby fetched; the first row of a
// thread's range is reduced alone. y and x, or dx and dy or add, may be one buffer: a pair is read
// before it is written.

// Sums of a row's x - shift and of their squares. Shifted by the mean of its first elements, the
// variance as the mean square less the squared mean seldom cancels (Chan, Golub and LeVeque 1983,
// "Algorithms for computing the sample variance", section 3); Finish notices when it does.
struct ShiftedSums {
  float shift = 0;
  Floats sum[4] = {}, squares[4] = {};
};

template <typename T, bool kCentered>
ShiftedSums StartSums(const T* x, int64_t hidden) {
  ShiftedSums sums;
  if constexpr (kCentered) {
    const int64_t n = std::min(hidden, simd::kLanes);
    sums.shift = simd::Sum(simd::Load(x, n)) / static_cast<float>(n);
  }
  return sums;
}

template <typename T, bool kCentered>
void AddTerms(const Pair& x, int64_t n, int k, ShiftedSums* sums) {
  Pair term = x;
  if constexpr (kCentered) {
    const float shift = sums->shift;
    term = simd::FirstOfPair<T>({x.even - shift, x.odd - shift}, n);
    sums->sum[2 * k] += term.even;
    sums->sum[2 * k + 1] += term.odd;
  }
  sums->squares[2 * k] += term.even * term.even;
  sums->squares[2 * k + 1] += term.odd * term.odd;
}

struct RowMoments {
  float mean;
  float square;  // mean (x - mean)^2
};

template <typename T, bool kCentered>
RowMoments Finish(const ShiftedSums& sums, const T* x, int64_t hidden) {
  const auto n = static_cast<float>(hidden);
  const float square = simd::Sum(sums.squares) / n;
  if constexpr (!kCentered) return {0, square};
  const float offset = simd::Sum(sums.sum) / n;
  const float mean = sums.shift + offset;
  // At most three bits are lost; else a pass over the row, which lies in the nearest cache.
  if (offset * offset <= 0.875f * square) return {mean, square - offset * offset};
  ShiftedSums centered;
  centered.shift = mean;
  simd::ForEachPairInTurn(hidden, [&](int64_t h, int64_t count, int k) TE_SIMD_LAMBDA {
    AddTerms<T, true>(LoadPair(x + h, count), count, k, &centered);
  });
  return {mean, simd::Sum(centered.squares) / n};
}

struct ForwardRowsArgs {
  ConstTensorView x;
  const float* g;
  const float* beta;  // when centered
  float epsilon;
  TensorView y;
  TensorView mean, rstd;  // optional
};

// Writes row x; returns the sums of `next`.
template <typename T, bool kCentered>
ShiftedSums ForwardRow(const ForwardRowsArgs& args, const T* x, const T* next, float mean,
                       float rstd, T* y) {
  const int64_t hidden = args.x.dim(1);
  const float* g = args.g;
  const float* beta = args.beta;
  ShiftedSums sums = StartSums<T, kCentered>(next, hidden);
  simd::ForEachPairInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    AddTerms<T, kCentered>(StreamPair(next + h, n), n, k, &sums);
    const Pair value = LoadPair(x + h, n), scale = LoadPair(g + h);
    if constexpr (kCentered) {
      const Pair shift = LoadPair(beta + h);
      StorePair({(value.even - mean) * rstd * scale.even + shift.even,
                 (value.odd - mean) * rstd * scale.odd + shift.odd},
                y + h, n);
    } else {
      StorePair({value.even * rstd * scale.even, value.odd * rstd * scale.odd}, y + h, n);
    }
  });
  return sums;
}

template <typename T, bool kCentered>
void ForwardRows(const Exec& exec, const ForwardRowsArgs& args) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1);
  ParallelFor(exec, tokens, RowGrain(hidden), [&](int64_t begin, int64_t end) {
    const auto row = [&](int64_t t) { return args.x.as<T>() + t * args.x.stride(0); };
    ShiftedSums sums = StartSums<T, kCentered>(row(begin), hidden);
    simd::ForEachPairInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
      AddTerms<T, kCentered>(StreamPair(row(begin) + h, n), n, k, &sums);
    });
    for (int64_t t = begin; t < end; ++t) {
      const RowMoments moments = Finish<T, kCentered>(sums, row(t), hidden);
      const float rstd = 1.0f / std::sqrt(moments.square + args.epsilon);
      sums = ForwardRow<T, kCentered>(args, row(t), row(std::min(t + 1, end - 1)), moments.mean,
                                      rstd, args.y.as<T>() + t * args.y.stride(0));
      if (args.mean.defined()) args.mean.as<float>()[t] = moments.mean;
      if (args.rstd.defined()) args.rstd.as<float>()[t] = rstd;
    }
  });
}

struct BackwardRowsArgs {
  ConstTensorView dy, x;
  const float* g;
  ConstTensorView mean;  // when centered
  ConstTensorView rstd;
  ConstTensorView add;  // optional
  TensorView dx;
};

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
  float w;    // of w = dy g, when centered
  float dot;  // of w (x - mean)
};

// Four running sums of each kind.
struct RunningSums {
  Floats w[4] = {}, dot[4] = {};

  Sums Total() const { return {simd::Sum(w), simd::Sum(dot)}; }
};

template <bool kCentered>
void AddTerms(const Pair& gradient, const Pair& x, const Pair& g, float mean, int k,
              RunningSums* sums) {
  const Floats even = gradient.even * g.even, odd = gradient.odd * g.odd;
  if constexpr (kCentered) {
    sums->w[2 * k] += even;
    sums->w[2 * k + 1] += odd;
  }
  sums->dot[2 * k] += even * (kCentered ? x.even - mean : x.even);
  sums->dot[2 * k + 1] += odd * (kCentered ? x.odd - mean : x.odd);
}

template <typename T, bool kCentered>
Sums SumsOf(const Row<T>& row, const float* g, int64_t hidden) {
  RunningSums sums;
  simd::ForEachPairInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    AddTerms<kCentered>(StreamPair(row.dy + h, n), StreamPair(row.x + h, n), LoadPair(g + h),
                        row.mean, k, &sums);
  });
  return sums.Total();
}

// Writes dx of `row` and adds its terms to the parameters' partial sums; returns SumsOf(next).
template <typename T, bool kCentered, bool kAdd, bool kPartial>
Sums BackwardRow(const Row<T> row, const Row<T> next, const float* g, Sums given, int64_t hidden,
                 float* gamma_partial, float* beta_partial) {
  const float mean = row.mean, rstd = row.rstd, next_mean = next.mean;
  const float mean_w = given.w / static_cast<float>(hidden);
  const float mean_dot = given.dot * rstd / static_cast<float>(hidden);  // of w xhat
  // Which of two products becomes a fused one would be the compiler's choice, anew in each
  // instantiation: dx must not depend on whether dgamma is wanted.
  const auto gradient_of = [&](Floats gradient, Floats xhat, Floats weight) TE_SIMD_LAMBDA {
    const Floats mean_terms =
        kCentered ? simd::MultiplyAdd(xhat, -mean_dot, Floats{} - mean_w) : xhat * -mean_dot;
    return simd::MultiplyAdd(gradient, weight, mean_terms) * rstd;
  };
  RunningSums sums;
  simd::ForEachPairInTurn(hidden, [&](int64_t h, int64_t n, int k) TE_SIMD_LAMBDA {
    const Pair weight = LoadPair(g + h);
    AddTerms<kCentered>(StreamPair(next.dy + h, n), StreamPair(next.x + h, n), weight, next_mean, k,
                        &sums);
    const Pair gradient = LoadPair(row.dy + h, n), x = LoadPair(row.x + h, n);
    const Pair xhat = {(kCentered ? x.even - mean : x.even) * rstd,
                       (kCentered ? x.odd - mean : x.odd) * rstd};
    Pair out = {gradient_of(gradient.even, xhat.even, weight.even),
                gradient_of(gradient.odd, xhat.odd, weight.odd)};
    if constexpr (kAdd) {
      const Pair add = StreamPair(row.add + h, n);
      out = {out.even + add.even, out.odd + add.odd};
    }
    if constexpr (kPartial) {
      // Both are read before either is written: their distance may be whole pages, and a load
      // waits for a store to an address that looks the same in its low 12 bits.
      const Pair gamma = LoadPair(gamma_partial + h);
      const Pair beta = kCentered ? LoadPair(beta_partial + h) : Pair{};
      StorePair({gamma.even + gradient.even * xhat.even, gamma.odd + gradient.odd * xhat.odd},
                gamma_partial + h);
      if constexpr (kCentered) {
        StorePair({beta.even + gradient.even, beta.odd + gradient.odd}, beta_partial + h);
      }
    }
    StorePair(out, row.dx + h, n);
  });
  return sums.Total();
}

template <typename T, bool kCentered, bool kAdd, bool kPartial>
void BackwardRange(const BackwardRowsArgs& args, int64_t begin, int64_t end, float* gamma_partial,
                   float* beta_partial) {
  const int64_t hidden = args.x.dim(1);
  const auto row = [&](int64_t t) {
    return Row<T>{.dy = args.dy.as<T>() + t * args.dy.stride(0),
                  .x = args.x.as<T>() + t * args.x.stride(0),
                  .add = kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr,
                  .dx = args.dx.as<T>() + t * args.dx.stride(0),
                  .mean = kCentered ? args.mean.as<float>()[t] : 0,
                  .rstd = args.rstd.as<float>()[t]};
  };
  Sums sums = SumsOf<T, kCentered>(row(begin), args.g, hidden);
  for (int64_t t = begin; t < end; ++t) {
    sums = BackwardRow<T, kCentered, kAdd, kPartial>(row(t), row(std::min(t + 1, end - 1)), args.g,
                                                     sums, hidden, gamma_partial, beta_partial);
  }
}

// Rows are summed into one partial per chunk, and the partials in order: the chunks depend on the
// number of rows alone, hence the same bits for any number of threads.
struct RowChunks {
  int64_t rows;
  int64_t count;

  explicit RowChunks(int64_t total_rows)
      : rows(std::max<int64_t>(16, (total_rows + 63) / 64)),
        count((total_rows + rows - 1) / rows) {}
};

// `partials`: of every chunk the Padded(hidden) sums of dgamma and, when centered, as many of
// dbeta; null when no parameter's gradient is wanted.
template <typename T, bool kCentered>
void BackwardRows(const Exec& exec, const BackwardRowsArgs& args, float* partials) {
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1), padded = Padded(hidden);
  const int64_t stride = kCentered ? 2 * padded : padded;
  const RowChunks chunks(tokens);
  const bool add = args.add.defined();
  const int64_t grain = std::max<int64_t>(1, RowGrain(hidden) / chunks.rows);
  ParallelFor(exec, chunks.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * chunks.rows, last = std::min(tokens, first + chunks.rows);
      if (partials == nullptr) {
        add ? BackwardRange<T, kCentered, true, false>(args, first, last, nullptr, nullptr)
            : BackwardRange<T, kCentered, false, false>(args, first, last, nullptr, nullptr);
        continue;
      }
      float* gamma = partials + c * stride;
      float* beta = gamma + padded;
      std::fill(gamma, gamma + stride, 0.0f);
      add ? BackwardRange<T, kCentered, true, true>(args, first, last, gamma, beta)
          : BackwardRange<T, kCentered, false, true>(args, first, last, gamma, beta);
    }
  });
}

// gradient[h] (+)= sum over chunks c of partials[c * stride + h], which lie in the order of T.
template <typename T>
void CombinePartials(const Exec& exec, const float* partials, int64_t count, int64_t stride,
                     bool accumulate, const TensorView& gradient) {
  constexpr int64_t kPair = simd::kPairLanes;
  const int64_t hidden = gradient.dim(0);
  const bool wide = gradient.dtype() == DType::kFloat32;
  const int64_t grain =
      std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, count * kPair));
  ParallelFor(exec, Padded(hidden) / kPair, grain, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin * kPair; h < end * kPair; h += kPair) {
      Pair added = {};
      for (int64_t c = 0; c < count; ++c) {
        const Pair partial = LoadPair(partials + c * stride + h);
        added = {added.even + partial.even, added.odd + partial.odd};
      }
      const int64_t n = std::min(kPair, hidden - h);
      if (wide) added = simd::FromOrderOf<T>(added);
      if (accumulate) {
        const Pair sum =
            wide ? LoadPair(gradient.as<float>() + h, n) : LoadPair(gradient.as<bfloat16>() + h, n);
        added = {sum.even + added.even, sum.odd + added.odd};
      }
      wide ? StorePair(added, gradient.as<float>() + h, n)
           : StorePair(added, gradient.as<bfloat16>() + h, n);
    }
  });
}

}  // namespace te::norm
