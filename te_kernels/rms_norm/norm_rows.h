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
// that writes some rows also reduces as many of the rows after them, which are thereby fetched.
// Several rows at once (loops over them are unrolled, or their sums would lie in memory), because
// what all rows share (gamma, beta, the sums of their gradients: up to 16 bytes an element beside
// the 2 of a bfloat16) passes between the first two caches once for all of them: in rows of 4096
// and more that is what took the time. The backward pass has registers for two. A row's own sums
// are the same in a block of any size, and y and x, or dx and dy or add, may be one buffer: a pair
// is read before it is written.
inline constexpr int kForwardRows = 4, kBackwardRows = 2;
// With rows this short, gamma and beta stay in the first cache (48 KiB) beside two rows and their
// outputs, and what four rows cost at their ends shows.
inline constexpr int64_t kShortRow = 2048;
inline constexpr int kForwardRowsShort = 2;

// The sum over a row, from those of its even and odd pairs' halves.
inline float Total(const Pair& sum) { return simd::Sum(sum.even + sum.odd); }

// Sums of a row's x - shift and of their squares. Shifted by the mean of its first elements, the
// variance as the mean square less the squared mean seldom cancels (Chan, Golub and LeVeque 1983,
// "Algorithms for computing the sample variance", section 3); Finish notices when it does.
struct ShiftedSums {
  float shift = 0;
  Pair sum = {}, squares = {};
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
inline __attribute__((always_inline)) void AddTerms(const Pair& x, int64_t n, ShiftedSums* sums) {
  Pair term = x;
  if constexpr (kCentered) {
    const float shift = sums->shift;
    term = simd::FirstOfPair<T>({x.even - shift, x.odd - shift}, n);
    sums->sum = {sums->sum.even + term.even, sums->sum.odd + term.odd};
  }
  sums->squares = {simd::MultiplyAdd(term.even, term.even, sums->squares.even),
                   simd::MultiplyAdd(term.odd, term.odd, sums->squares.odd)};
}

struct RowMoments {
  float mean;
  float square;  // mean (x - mean)^2
};

template <typename T, bool kCentered>
RowMoments Finish(const ShiftedSums& sums, const T* x, int64_t hidden) {
  const auto n = static_cast<float>(hidden);
  const float square = Total(sums.squares) / n;
  if constexpr (!kCentered) return {0, square};
  const float offset = Total(sums.sum) / n;
  const float mean = sums.shift + offset;
  // At most three bits are lost; else a pass over the row, which lies in a near cache.
  if (offset * offset <= 0.875f * square) return {mean, square - offset * offset};
  ShiftedSums centered;
  centered.shift = mean;
  simd::ForEachPair(hidden, [&](int64_t h, int64_t count) TE_SIMD_LAMBDA {
    AddTerms<T, true>(LoadPair(x + h, count), count, &centered);
  });
  return {mean, Total(centered.squares) / n};
}

struct ForwardRowsArgs {
  ConstTensorView x;
  const float* g;
  const float* beta;  // when centered
  float epsilon;
  TensorView y;
  TensorView mean, rstd;  // optional
};

struct RowScale {
  float mean, rstd;
};

// Writes kWrite rows from t on, given their scales; replaces these by the ones of the kNext rows
// that follow.
template <typename T, bool kCentered, int kWrite, int kNext>
void ForwardBlock(const ForwardRowsArgs& args, int64_t t, RowScale* scales) {
  const int64_t hidden = args.x.dim(1);
  const float* g = args.g;
  const float* beta = args.beta;
  // Arrays of no elements are none of C++'s.
  const T* x[kWrite + 1];
  T* y[kWrite + 1];
  RowScale given[kWrite + 1];
#pragma GCC unroll 4
  for (int r = 0; r < kWrite; ++r) {
    x[r] = args.x.as<T>() + (t + r) * args.x.stride(0);
    y[r] = args.y.as<T>() + (t + r) * args.y.stride(0);
    given[r] = scales[r];
  }
  const T* next[kNext + 1];
  ShiftedSums sums[kNext + 1];
#pragma GCC unroll 4
  for (int r = 0; r < kNext; ++r) {
    next[r] = args.x.as<T>() + (t + kWrite + r) * args.x.stride(0);
    sums[r] = StartSums<T, kCentered>(next[r], hidden);
  }
  // The same place in the block after the next one: closer is another row of the next one itself
  // when rows are short.
  const int64_t ahead = kNext * args.x.stride(0) * static_cast<int64_t>(sizeof(T));
  simd::ForEachPair(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
#pragma GCC unroll 4
    for (int r = 0; r < kNext; ++r) {
      AddTerms<T, kCentered>(StreamPair(next[r] + h, n, ahead), n, &sums[r]);
    }
    if constexpr (kWrite > 0) {
      const Pair scale = LoadPair(g + h), shift = kCentered ? LoadPair(beta + h) : Pair{};
#pragma GCC unroll 4
      for (int r = 0; r < kWrite; ++r) {
        const Pair value = LoadPair(x[r] + h, n);
        const float mean = given[r].mean, rstd = given[r].rstd;
        if constexpr (kCentered) {
          StorePair({simd::MultiplyAdd((value.even - mean) * rstd, scale.even, shift.even),
                     simd::MultiplyAdd((value.odd - mean) * rstd, scale.odd, shift.odd)},
                    y[r] + h, n);
        } else {
          StorePair({value.even * rstd * scale.even, value.odd * rstd * scale.odd}, y[r] + h, n);
        }
      }
    }
  });
  for (int r = 0; r < kNext; ++r) {
    const RowMoments moments = Finish<T, kCentered>(sums[r], next[r], hidden);
    scales[r] = {.mean = moments.mean, .rstd = 1.0f / std::sqrt(moments.square + args.epsilon)};
    const int64_t row = t + kWrite + r;
    if (args.mean.defined()) args.mean.as<float>()[row] = scales[r].mean;
    if (args.rstd.defined()) args.rstd.as<float>()[row] = scales[r].rstd;
  }
}

template <typename T, bool kCentered, int kRows>
void ForwardRange(const ForwardRowsArgs& args, int64_t t, int64_t end) {
  RowScale scales[kRows];
  if (end - t >= kRows) {
    ForwardBlock<T, kCentered, 0, kRows>(args, t, scales);
    for (; end - t >= 2 * kRows; t += kRows) {
      ForwardBlock<T, kCentered, kRows, kRows>(args, t, scales);
    }
    ForwardBlock<T, kCentered, kRows, 0>(args, t, scales);
    t += kRows;
  }
  for (; t < end; ++t) {
    ForwardBlock<T, kCentered, 0, 1>(args, t, scales);
    ForwardBlock<T, kCentered, 1, 0>(args, t, scales);
  }
}

template <typename T, bool kCentered>
void ForwardRows(const Exec& exec, const ForwardRowsArgs& args) {
  const int64_t hidden = args.x.dim(1);
  ParallelFor(exec, args.x.dim(0), RowGrain(hidden), [&](int64_t begin, int64_t end) {
    hidden > kShortRow ? ForwardRange<T, kCentered, kForwardRows>(args, begin, end)
                       : ForwardRange<T, kCentered, kForwardRowsShort>(args, begin, end);
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

template <typename T, bool kCentered, bool kAdd>
Row<T> RowAt(const BackwardRowsArgs& args, int64_t t) {
  return {.dy = args.dy.as<T>() + t * args.dy.stride(0),
          .x = args.x.as<T>() + t * args.x.stride(0),
          .add = kAdd ? args.add.as<T>() + t * args.add.stride(0) : nullptr,
          .dx = args.dx.as<T>() + t * args.dx.stride(0),
          .mean = kCentered ? args.mean.as<float>()[t] : 0,
          .rstd = args.rstd.as<float>()[t]};
}

struct RowMeans {
  float w;    // of w = dy g, when centered
  float dot;  // of w xhat
};

// Writes dx of kWrite rows from t on, given their means; replaces these by the ones of the kNext
// rows that follow, whose terms of the parameters' gradients are added to the partial sums.
// Products that are added are fused by name: which of two the compiler would take is its choice,
// anew in each instantiation, and dx must not depend on whether dgamma is wanted.
template <typename T, bool kCentered, bool kAdd, bool kPartial, int kWrite, int kNext>
void BackwardBlock(const BackwardRowsArgs& args, int64_t t, RowMeans* means, float* gamma_partial,
                   float* beta_partial) {
  const int64_t hidden = args.x.dim(1);
  const float* g = args.g;
  Row<T> rows[kWrite + 1], next[kNext + 1];
  RowMeans given[kWrite + 1];
#pragma GCC unroll 4
  for (int r = 0; r < kWrite; ++r) {
    rows[r] = RowAt<T, kCentered, kAdd>(args, t + r);
    given[r] = means[r];
  }
  Pair w[kNext + 1], dot[kNext + 1];
#pragma GCC unroll 4
  for (int r = 0; r < kNext; ++r) {
    next[r] = RowAt<T, kCentered, kAdd>(args, t + kWrite + r);
    w[r] = dot[r] = Pair{};
  }
  const auto ahead = [](const ConstTensorView& view) {
    return kNext * view.stride(0) * static_cast<int64_t>(sizeof(T));
  };
  const int64_t x_ahead = ahead(args.x), dy_ahead = ahead(args.dy);
  const auto xhat_of = [&](const Row<T>& row, const Pair& x) TE_SIMD_LAMBDA {
    return Pair{(kCentered ? x.even - row.mean : x.even) * row.rstd,
                (kCentered ? x.odd - row.mean : x.odd) * row.rstd};
  };
  simd::ForEachPair(hidden, [&](int64_t h, int64_t n) TE_SIMD_LAMBDA {
    const Pair weight = LoadPair(g + h);
    if constexpr (kNext > 0) {
      Pair gamma = kPartial ? LoadPair(gamma_partial + h) : Pair{};
      Pair beta = kPartial && kCentered ? LoadPair(beta_partial + h) : Pair{};
#pragma GCC unroll 4
      for (int r = 0; r < kNext; ++r) {
        const Pair dy = StreamPair(next[r].dy + h, n, dy_ahead);
        const Pair xhat = xhat_of(next[r], StreamPair(next[r].x + h, n, x_ahead));
        const Pair terms = {dy.even * weight.even, dy.odd * weight.odd};
        if constexpr (kCentered) w[r] = {w[r].even + terms.even, w[r].odd + terms.odd};
        // Where the row has ended, x - mean is not zero, but dy is.
        dot[r] = {simd::MultiplyAdd(terms.even, xhat.even, dot[r].even),
                  simd::MultiplyAdd(terms.odd, xhat.odd, dot[r].odd)};
        if constexpr (kPartial) {
          gamma = {simd::MultiplyAdd(dy.even, xhat.even, gamma.even),
                   simd::MultiplyAdd(dy.odd, xhat.odd, gamma.odd)};
          if constexpr (kCentered) beta = {beta.even + dy.even, beta.odd + dy.odd};
        }
      }
      if constexpr (kPartial) {
        StorePair(gamma, gamma_partial + h);
        if constexpr (kCentered) StorePair(beta, beta_partial + h);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kWrite; ++r) {
      const auto dx_of = [&](Floats dy, Floats xhat, Floats factor) TE_SIMD_LAMBDA {
        const Floats mean_terms =
            kCentered ? simd::MultiplyAdd(xhat, -given[r].dot, Floats{} - given[r].w)
                      : xhat * -given[r].dot;
        return simd::MultiplyAdd(dy, factor, mean_terms) * rows[r].rstd;
      };
      const Pair dy = LoadPair(rows[r].dy + h, n);
      const Pair xhat = xhat_of(rows[r], LoadPair(rows[r].x + h, n));
      Pair dx = {dx_of(dy.even, xhat.even, weight.even), dx_of(dy.odd, xhat.odd, weight.odd)};
      if constexpr (kAdd) {
        const Pair add = StreamPair(rows[r].add + h, n);
        dx = {dx.even + add.even, dx.odd + add.odd};
      }
      simd::StreamPairTo(dx, rows[r].dx + h, n);
    }
  });
  for (int r = 0; r < kNext; ++r) {
    const auto count = static_cast<float>(hidden);
    means[r] = {.w = Total(w[r]) / count, .dot = Total(dot[r]) / count};
  }
}

template <typename T, bool kCentered, bool kAdd, bool kPartial>
void BackwardRange(const BackwardRowsArgs& args, int64_t t, int64_t end, float* gamma_partial,
                   float* beta_partial) {
  constexpr int kRows = kBackwardRows;
  RowMeans means[kRows];
  const auto block = [&]<int kWrite, int kNext>() {
    BackwardBlock<T, kCentered, kAdd, kPartial, kWrite, kNext>(args, t, means, gamma_partial,
                                                               beta_partial);
  };
  if (end - t >= kRows) {
    block.template operator()<0, kRows>();
    for (; end - t >= 2 * kRows; t += kRows) block.template operator()<kRows, kRows>();
    block.template operator()<kRows, 0>();
    t += kRows;
  }
  for (; t < end; ++t) {
    block.template operator()<0, 1>();
    block.template operator()<1, 0>();
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
