#include "te_kernels/gemm/amx_tiles.h"

#if defined(__x86_64__)

// GCC 12 takes the undefined vectors inside its own intrinsics for a mistake (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#define TE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define TE_AMX __attribute__((target("amx-tile,amx-bf16,avx512f")))
#define TE_INLINE inline __attribute__((always_inline))

namespace te::amx {
namespace {

// Intrinsics of tile loads do not tell the compiler that they read memory (GCC 12).
TE_INLINE void MemoryBarrier() { asm volatile("" ::: "memory"); }

bool Permitted() {
  // linux/arch/x86/include/uapi/asm/prctl.h: ARCH_REQ_XCOMP_PERM, for XFEATURE_XTILEDATA.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Intel's manual, volume 1, section 18.3: what ldtilecfg reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_a_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Not in the constructor itself: GCC 12 ignores the target attribute there.
TE_AMX void Configure() {
  const TileConfig config;
  // The pointer escapes: ldtilecfg's intrinsic claims to read its first 8 bytes alone (GCC 12).
  asm volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}
TE_AMX void Release() { _tile_release(); }

// Transposes 16 x 16 values of 32 bits.
TE_AVX512 TE_INLINE void Transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 g + c] holds, in lane l, column 4 l + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
    r[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
    r[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
    r[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
  }
}

TE_AVX512 TE_INLINE __mmask32 FirstOf(int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1;
}

TE_AVX512 TE_INLINE void StoreTile(__m512i (&rows)[16], bool transpose, char* to) {
  if (transpose) Transpose(rows);
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to + 64 * i, rows[i]);
}

// 16 lines whose terms are contiguous: a row is a line's 16 pairs of terms.
TE_AVX512 void PackLines(const PanelSource& from, int64_t line, int64_t term, char* to) {
  const __mmask32 mask = FirstOf(from.terms - term);
  __m512i rows[16];
  for (int i = 0; i < 16; ++i) {
    rows[i] = line + i < from.lines
                  ? _mm512_maskz_loadu_epi16(mask, from.x + (line + i) * from.stride + term)
                  : _mm512_setzero_si512();
  }
  StoreTile(rows, !from.rows_are_lines, to);
}

// 32 contiguous lines: a row is a pair of terms of 16 lines.
TE_AVX512 void PackTerms(const PanelSource& from, int64_t term, char* to) {
  alignas(64) static constexpr uint16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(kLow);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const __mmask32 mask = FirstOf(from.lines);
  __m512i left[16], right[16];
  for (int i = 0; i < 16; ++i) {
    const int64_t even = term + 2 * i;
    const uint16_t* const x = from.x + even * from.stride;
    const __m512i first =
        even < from.terms ? _mm512_maskz_loadu_epi16(mask, x) : _mm512_setzero_si512();
    const __m512i second = even + 1 < from.terms ? _mm512_maskz_loadu_epi16(mask, x + from.stride)
                                                 : _mm512_setzero_si512();
    left[i] = _mm512_permutex2var_epi16(first, low, second);
    right[i] = _mm512_permutex2var_epi16(first, high, second);
  }
  StoreTile(left, from.rows_are_lines, to);
  StoreTile(right, from.rows_are_lines, to + 1024);
}

}  // namespace

bool Available() {
  static const bool available =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16") &&
      __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && Permitted();
  return available;
}

TileScope::TileScope() { Configure(); }

TileScope::~TileScope() { Release(); }

void PackPanel(const PanelSource& from, char* to) {
  for (int64_t term = 0; term < from.terms; term += kTerms, to += kStepBytes) {
    if (from.terms_contiguous) {
      PackLines(from, 0, term, to);
      PackLines(from, 16, term, to + 1024);
    } else {
      PackTerms(from, term, to);
    }
  }
}

TE_AMX void Multiply(const char* a, const char* b, int64_t steps, bool accumulate, float* sums,
                     const char* next, int64_t lines_a_step) {
  MemoryBarrier();
  if (accumulate) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + 256, 64);
    _tile_loadd(2, sums + 512, 64);
    _tile_loadd(3, sums + 768, 64);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < steps; ++i) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + 1024, 64);
    _tile_loadd(5, a + 1024, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += kStepBytes;
    b += kStepBytes;
    for (int64_t line = 0; line < lines_a_step; ++line, next += 64) _mm_prefetch(next, _MM_HINT_T1);
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
  MemoryBarrier();
}

TE_AVX512 static TE_INLINE __m512 LoadBf16(__mmask16 mask, const uint16_t* x) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16));
}

TE_AVX512 static TE_INLINE __m512 Load(__mmask16 mask, const float* x) {
  return _mm512_maskz_loadu_ps(mask, x);
}
TE_AVX512 static TE_INLINE __m512 Load(__mmask16 mask, const uint16_t* x) {
  return LoadBf16(mask, x);
}
TE_AVX512 static TE_INLINE void StoreAs(__mmask16 mask, __m512 value, float* x) {
  _mm512_mask_storeu_ps(x, mask, value);
}
TE_AVX512 static TE_INLINE void StoreAs(__mmask16 mask, __m512 value, uint16_t* x) {
  _mm256_mask_storeu_epi16(x, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}

// Up to 16 x 16 of d, from one tile.
template <bool kAccumulate, typename T>
TE_AVX512 static TE_INLINE void StoreTile(const float* tile, __m512 alpha, __m512 added,
                                          __mmask16 mask, int64_t rows, int64_t stride, T* d) {
  for (int64_t i = 0; i < rows; ++i, d += stride) {
    __m512 sum = _mm512_fmadd_ps(_mm512_load_ps(tile + 16 * i), alpha, added);
    if constexpr (kAccumulate) sum = _mm512_add_ps(sum, Load(mask, d));
    StoreAs(mask, sum, d);
  }
}

template <typename T>
TE_AVX512 static TE_INLINE void StorePanels(const Epilogue& epilogue, const float* sums,
                                            int64_t column, int64_t rows, int64_t columns,
                                            const void* bias, T* d) {
  const __m512 alpha = _mm512_set1_ps(epilogue.alpha);
  for (int64_t half = 0; half < columns; half += 16) {
    const auto mask = static_cast<__mmask16>(FirstOf(std::min<int64_t>(16, columns - half)));
    __m512 added = _mm512_setzero_ps();
    if (bias != nullptr) {
      added = epilogue.bias_is_float
                  ? Load(mask, static_cast<const float*>(bias) + column + half)
                  : Load(mask, static_cast<const uint16_t*>(bias) + column + half);
    }
    for (int64_t i = 0; i < rows; i += 16) {
      const float* const tile = sums + (i / 8 + half / 16) * 256;
      const int64_t count = std::min<int64_t>(16, rows - i);
      T* const to = d + i * epilogue.d_stride + half;
      if (epilogue.accumulate) {
        StoreTile<true>(tile, alpha, added, mask, count, epilogue.d_stride, to);
      } else {
        StoreTile<false>(tile, alpha, added, mask, count, epilogue.d_stride, to);
      }
    }
  }
}

TE_AVX512 void Store(const Epilogue& epilogue, const float* sums, int64_t row, int64_t column,
                     int64_t rows, int64_t columns, const void* bias, void* d) {
  const int64_t offset = row * epilogue.d_stride + column;
  if (epilogue.d_is_float) {
    StorePanels(epilogue, sums, column, rows, columns, bias, static_cast<float*>(d) + offset);
  } else {
    StorePanels(epilogue, sums, column, rows, columns, bias, static_cast<uint16_t*>(d) + offset);
  }
}

}  // namespace te::amx

#endif
