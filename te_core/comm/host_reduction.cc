#include "te_core/comm/host_reduction.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace te {
namespace {

// What elements of type T are reduced in: integers without a sign, because theirs may overflow.
template <typename T>
struct AccumulatorOf {
  using type = T;
};
template <>
struct AccumulatorOf<bfloat16> {
  using type = float;
};
template <>
struct AccumulatorOf<float16> {
  using type = float;
};

template <typename A>
A Combine(ReduceOp op, A a, A b) {
  switch (op) {
    case ReduceOp::kSum:
      if constexpr (std::is_integral_v<A>) {
        using U = std::make_unsigned_t<A>;
        return static_cast<A>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
      } else {
        return a + b;
      }
    case ReduceOp::kMax:
      if constexpr (std::is_integral_v<A>)
        return std::max(a, b);
      else
        return std::fmax(a, b);
    case ReduceOp::kMin:
      if constexpr (std::is_integral_v<A>)
        return std::min(a, b);
      else
        return std::fmin(a, b);
  }
  return a;
}

template <typename T>
void Reduce(ReduceOp op, std::span<const char* const> sources, std::span<char* const> results,
            int64_t count) {
  using A = typename AccumulatorOf<T>::type;
  constexpr int64_t kBlock = 1024;
  A block[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const auto source = [&](size_t r) { return reinterpret_cast<const T*>(sources[r]) + begin; };
    for (int64_t i = 0; i < n; ++i) block[i] = static_cast<A>(source(0)[i]);
    for (size_t r = 1; r < sources.size(); ++r) {
      const T* from = source(r);
      for (int64_t i = 0; i < n; ++i) block[i] = Combine(op, block[i], static_cast<A>(from[i]));
    }
    for (char* result : results) {
      T* to = reinterpret_cast<T*>(result) + begin;
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(block[i]);
    }
  }
}

}  // namespace

void ReduceHost(DType dtype, ReduceOp op, std::span<const char* const> sources,
                std::span<char* const> results, int64_t count) {
  switch (dtype) {
    case DType::kFloat32:
      return Reduce<float>(op, sources, results, count);
    case DType::kBFloat16:
      return Reduce<bfloat16>(op, sources, results, count);
    case DType::kFloat16:
      return Reduce<float16>(op, sources, results, count);
    case DType::kFloat64:
      return Reduce<double>(op, sources, results, count);
    case DType::kInt32:
      return Reduce<int32_t>(op, sources, results, count);
    case DType::kInt64:
      return Reduce<int64_t>(op, sources, results, count);
    case DType::kUInt8:
      return Reduce<uint8_t>(op, sources, results, count);
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      return;  // no Communicator reduces them
  }
}

}  // namespace te
