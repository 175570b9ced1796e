#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/cast/cast.h"

namespace te {
namespace {

constexpr int64_t kGrain = 1 << 15;

// FP8 and masks are copied, not converted: one byte is like another.
struct Byte {
  uint8_t bits;
};

// To float by rounding to odd: a second rounding, to bfloat16 or float16, then gives what one
// rounding gives (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const double back = nearest;
  const bool inexact = back < value || back > value;  // false for NaN
  const bool beyond = value < 0 ? back < value : back > value;
  bits = inexact ? ((bits - (beyond ? 1u : 0u)) | 1u) : bits;
  return std::bit_cast<float>(bits);
}

template <typename From, typename To>
To Convert(From value, float scale) {
  if constexpr (std::is_same_v<From, Byte>) {
    return value;
  } else if constexpr (std::is_integral_v<From>) {
    using Limits = std::numeric_limits<To>;
    return static_cast<To>(std::clamp<int64_t>(value, Limits::min(), Limits::max()));
  } else if constexpr (std::is_same_v<From, double> || std::is_same_v<To, double>) {
    double wide;
    if constexpr (std::is_same_v<From, double>) {
      wide = value;
    } else {
      wide = static_cast<float>(value);
    }
    wide *= scale;
    if constexpr (std::is_same_v<To, double>) {
      return wide;
    } else if constexpr (std::is_same_v<To, float>) {
      return static_cast<float>(wide);
    } else {
      return static_cast<To>(RoundToOdd(wide));
    }
  } else {
    return static_cast<To>(static_cast<float>(value) * scale);
  }
}

// The copy as nested loops, as few as the strides allow: neighbouring dimensions that both tensors
// walk with one stride become one.
struct Loops {
  int rank = 0;
  int64_t dims[kMaxRank + 1];
  int64_t from[kMaxRank + 1];
  int64_t to[kMaxRank + 1];
};

Loops Collapse(const CastArgs& args) {
  Loops loops;
  for (int i = 0; i < args.x.rank(); ++i) {
    if (args.x.dim(i) == 1) continue;
    const int last = loops.rank - 1;
    if (last >= 0 && loops.from[last] == args.x.stride(i) * args.x.dim(i) &&
        loops.to[last] == args.y.stride(i) * args.x.dim(i)) {
      loops.dims[last] *= args.x.dim(i);
      loops.from[last] = args.x.stride(i);
      loops.to[last] = args.y.stride(i);
    } else {
      loops.dims[loops.rank] = args.x.dim(i);
      loops.from[loops.rank] = args.x.stride(i);
      loops.to[loops.rank] = args.y.stride(i);
      ++loops.rank;
    }
  }
  if (loops.rank == 0) loops = {.rank = 1, .dims = {1}, .from = {1}, .to = {1}};
  return loops;
}

template <typename From, typename To>
void CopyRow(const From* x, int64_t x_stride, To* y, int64_t y_stride, int64_t n, float scale) {
  if (x_stride == 1 && y_stride == 1) {
    if constexpr (std::is_same_v<From, To>) {
      if (scale == 1) {
        // Not through float: signalling NaN keep their bits. memmove: y may be x.
        std::memmove(y, x, n * sizeof(From));
        return;
      }
    }
    constexpr bool kNarrow = std::is_same_v<From, bfloat16> || std::is_same_v<From, float>;
    if constexpr (kNarrow && (std::is_same_v<To, bfloat16> || std::is_same_v<To, float>)) {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) StoreRounded(LoadFloat(x + i) * scale, y + i);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] = Convert<From, To>(x[i], scale);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<From, To>) {
      if (scale == 1) {
        y[i * y_stride] = x[i * x_stride];
        continue;
      }
    }
    y[i * y_stride] = Convert<From, To>(x[i * x_stride], scale);
  }
}

template <typename From, typename To>
void Run(const Exec& exec, const CastArgs& args) {
  const Loops loops = Collapse(args);
  const From* x = args.x.as<From>();
  To* y = args.y.as<To>();
  const int inner = loops.rank - 1;
  const int64_t width = loops.dims[inner];
  // Elements in row-major order are split among threads; a range starts and ends inside a row.
  ParallelFor(exec, args.x.elements(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t column = i % width;
      int64_t row = i / width;
      int64_t from = column * loops.from[inner];
      int64_t to = column * loops.to[inner];
      for (int d = inner - 1; d >= 0; --d) {
        const int64_t index = row % loops.dims[d];
        row /= loops.dims[d];
        from += index * loops.from[d];
        to += index * loops.to[d];
      }
      const int64_t count = std::min(width - column, end - i);
      CopyRow(x + from, loops.from[inner], y + to, loops.to[inner], count, args.scale);
      i += count;
    }
  });
}

template <typename From>
Status RunFloating(const Exec& exec, const CastArgs& args) {
  switch (args.y.dtype()) {
    case DType::kFloat32:
      Run<From, float>(exec, args);
      return OkStatus();
    case DType::kBFloat16:
      Run<From, bfloat16>(exec, args);
      return OkStatus();
    case DType::kFloat16:
      Run<From, float16>(exec, args);
      return OkStatus();
    default:
      Run<From, double>(exec, args);
      return OkStatus();
  }
}

template <typename From>
Status RunInteger(const Exec& exec, const CastArgs& args) {
  if (args.y.dtype() == DType::kInt32) {
    Run<From, int32_t>(exec, args);
  } else {
    Run<From, int64_t>(exec, args);
  }
  return OkStatus();
}

}  // namespace

Status CastCpu(const Exec& exec, const CastArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCast(args));
  if (args.x.elements() == 0) return OkStatus();
  switch (args.x.dtype()) {
    case DType::kFloat32:
      return RunFloating<float>(exec, args);
    case DType::kBFloat16:
      return RunFloating<bfloat16>(exec, args);
    case DType::kFloat16:
      return RunFloating<float16>(exec, args);
    case DType::kFloat64:
      return RunFloating<double>(exec, args);
    case DType::kInt32:
      return RunInteger<int32_t>(exec, args);
    case DType::kInt64:
      return RunInteger<int64_t>(exec, args);
    default:
      Run<Byte, Byte>(exec, args);
      return OkStatus();
  }
}

}  // namespace te
