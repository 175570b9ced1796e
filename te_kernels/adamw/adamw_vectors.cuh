// How AdamW's kernels on CUDA read, update and write a vector of each tensor.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "te_kernels/adamw/adamw_update.cuh"
#include "te_kernels/base/dtype.h"

namespace te::adamw_cuda {

// Elements of a vector: 16 bytes of bfloat16, two Philox blocks.
inline constexpr int kWidth = 8;

// kWidth elements as they lie in memory, unpacked and packed again by halves: few of them are in
// registers as floats at a time.
template <typename T>
struct Vectors {
  __device__ void Read(const T* p) {
#pragma unroll
    for (int k = 0; k < kWords; k += 4) {
      const uint4 vector =
          *reinterpret_cast<const uint4*>(reinterpret_cast<const uint32_t*>(p) + k);
      words[k] = vector.x;
      words[k + 1] = vector.y;
      words[k + 2] = vector.z;
      words[k + 3] = vector.w;
    }
  }
  __device__ void Write(T* p) const {
#pragma unroll
    for (int k = 0; k < kWords; k += 4) {
      *reinterpret_cast<uint4*>(reinterpret_cast<uint32_t*>(p) + k) =
          make_uint4(words[k], words[k + 1], words[k + 2], words[k + 3]);
    }
  }
  // Elements 4 half .. 4 half + 3.
  __device__ void Get(int half, float (&out)[4]) const {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t word = words[(4 * half + e) * static_cast<int>(sizeof(T)) / 4];
      out[e] = __uint_as_float(sizeof(T) == 4 ? word
                               : e % 2 == 0   ? word << 16
                                              : word & 0xffff0000u);
    }
  }
  __device__ void Set(int half, const float (&in)[4]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int e = 0; e < 4; ++e) words[4 * half + e] = __float_as_uint(in[e]);
    } else {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(in[2 * k], in[2 * k + 1]);
        words[2 * half + k] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }
  // The same, bfloat16s rounded stochastically by `bits` of the elements' random numbers.
  __device__ void SetStochastically(int half, const float (&in)[4], const uint32_t (&numbers)[4],
                                    uint32_t RandomBits::*bits) {
    if constexpr (sizeof(T) == 4) {
      Set(half, in);
    } else {
      uint32_t sums[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[e] = StochasticSum(in[e], BitsOf(numbers[e]).*bits);
#pragma unroll
      for (int k = 0; k < 2; ++k)
        words[2 * half + k] = __byte_perm(sums[2 * k], sums[2 * k + 1], 0x7632);
    }
  }

  static constexpr int kWords = kWidth * static_cast<int>(sizeof(T)) / 4;
  uint32_t words[kWords];
};

// What an update of a dense param reads and writes.
struct DenseTensors {
  void* param;
  const void* grad;
  void* m;
  void* v;
  float* master;
};

// A vector of each tensor that an update reads.
template <typename Param, typename Grad, typename Moment, bool kMaster>
struct DenseInputs {
  using Weight = std::conditional_t<kMaster, float, Param>;

  // Elements [i, i + kWidth); i is a multiple of kWidth.
  __device__ void Read(const DenseTensors& t, int64_t i) {
    weight.Read((kMaster ? reinterpret_cast<const Weight*>(t.master)
                         : static_cast<const Weight*>(t.param)) +
                i);
    grad.Read(static_cast<const Grad*>(t.grad) + i);
    m.Read(static_cast<const Moment*>(t.m) + i);
    v.Read(static_cast<const Moment*>(t.v) + i);
  }

  // Writes the new values of the elements that were read at i. emit(half, w): those of param, four
  // of them, as they are stored.
  template <bool kStochastic, typename Emit>
  __device__ void Update(const DenseTensors& t, const Constants& c, const RandomState& random,
                         int64_t i, const Emit& emit) {
    Vectors<Param> param;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float w[4], g[4], new_m[4], new_v[4];
      weight.Get(half, w);
      grad.Get(half, g);
      m.Get(half, new_m);
      v.Get(half, new_v);
      UpdateValues(c, g, &new_m, &new_v, &w);
      if constexpr (kMaster) weight.Set(half, w);
      if constexpr (kStochastic) {
        uint32_t numbers[4];
        RandomNumbers(random, i | 4 * half, numbers);
        param.SetStochastically(half, w, numbers, &RandomBits::param);
        m.SetStochastically(half, new_m, numbers, &RandomBits::m);
        v.SetStochastically(half, new_v, numbers, &RandomBits::v);
      } else {
        param.Set(half, w);
        m.Set(half, new_m);
        v.Set(half, new_v);
      }
      param.Get(half, w);
      emit(half, w);
    }
    if constexpr (kMaster) weight.Write(t.master + i);
    param.Write(static_cast<Param*>(t.param) + i);
    m.Write(static_cast<Moment*>(t.m) + i);
    v.Write(static_cast<Moment*>(t.v) + i);
  }

  Vectors<Weight> weight;
  Vectors<Grad> grad;
  Vectors<Moment> m, v;
};

}  // namespace te::adamw_cuda
