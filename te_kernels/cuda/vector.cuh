// Vectors of up to 16 bytes between memory and float registers: how every memory-bound kernel reads
// and writes. One lane's N elements lie side by side.
#pragma once

#include <cuda_bf16.h>

#include <bit>
#include <cstdint>
#include <type_traits>

#include "te_kernels/base/dtype.h"

namespace te::cuda {

// Elements of T in 16 bytes.
template <typename T>
inline constexpr int kLanes = 16 / static_cast<int>(sizeof(T));

template <int kBytes>
struct Raw;
template <>
struct Raw<1> {
  using type = unsigned char;
};
template <>
struct Raw<2> {
  using type = unsigned short;
};
template <>
struct Raw<4> {
  using type = unsigned int;
};
template <>
struct Raw<8> {
  using type = uint2;
};
template <>
struct Raw<16> {
  using type = uint4;
};

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(bfloat16 x) {
  return __uint_as_float(static_cast<unsigned int>(x.bits) << 16);
}
template <typename T>
__device__ inline T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline bfloat16 FromFloat<bfloat16>(float x) {
  bfloat16 out;
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
  return out;
}

template <typename T, int N>
struct alignas(N * sizeof(T)) Elements {
  T at[N];
  template <typename Vector>
  __device__ static Elements Of(const Vector& vector) {
    return std::bit_cast<Elements>(vector);
  }
};

// The elements of a vector that Load would read.
template <typename T, int N, typename Vector>
__device__ inline void Unpack(const Vector& vector, float (&out)[N]) {
  if constexpr (std::is_same_v<T, bfloat16> && N % 2 == 0) {  // one instruction an element, not two
    struct Words {
      unsigned int at[N / 2];
    };
    const auto words = std::bit_cast<Words>(vector);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      out[2 * i] = __uint_as_float(words.at[i] << 16);
      out[2 * i + 1] = __uint_as_float(words.at[i] & 0xffff0000u);
    }
  } else {
    const auto elements = Elements<T, N>::Of(vector);
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = ToFloat(elements.at[i]);
  }
}

// How a vector passes through the caches: kKeep as usual; kOnce for data that nobody reads again
// soon (evict first).
enum class Cache { kKeep, kOnce };

// N elements of T from `p`, aligned to N * sizeof(T) (a power of two, at most 16 bytes).
template <int N, Cache kCache = Cache::kKeep, typename T>
__device__ inline void Load(const T* p, float (&out)[N]) {
  using Vector = typename Raw<N* static_cast<int>(sizeof(T))>::type;
  const Vector* source = reinterpret_cast<const Vector*>(p);
  Unpack<T>(kCache == Cache::kOnce ? __ldcs(source) : *source, out);
}

template <int N, Cache kCache = Cache::kKeep, typename T>
__device__ inline void Store(T* p, const float (&in)[N]) {
  using Vector = typename Raw<N* static_cast<int>(sizeof(T))>::type;
  Elements<T, N> elements;
#pragma unroll
  for (int i = 0; i < N; ++i) elements.at[i] = FromFloat<T>(in[i]);
  const Vector vector = std::bit_cast<Vector>(elements);
  if constexpr (kCache == Cache::kOnce) {
    __stcs(reinterpret_cast<Vector*>(p), vector);
  } else {
    *reinterpret_cast<Vector*>(p) = vector;
  }
}

// As Store, of 16 bytes, in one access whatever stands around it: plain ones are split at times,
// where the compiler merges them across branches. Global memory only.
template <int N, typename T>
__device__ inline void StoreGlobal(T* p, const float (&in)[N]) {
  using Vector = typename Raw<N* static_cast<int>(sizeof(T))>::type;
  Elements<T, N> elements;
#pragma unroll
  for (int i = 0; i < N; ++i) elements.at[i] = FromFloat<T>(in[i]);
  __stwb(reinterpret_cast<Vector*>(p), std::bit_cast<Vector>(elements));
}

// Whether vectors of N elements may be used on rows of this pointer and row stride (in elements).
template <int N, typename T>
bool Aligned(const T* p, int64_t row_stride) {
  return reinterpret_cast<uintptr_t>(p) % (N * sizeof(T)) == 0 && row_stride % N == 0;
}

}  // namespace te::cuda
