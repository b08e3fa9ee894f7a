// The vector vocabulary, 16 lanes = two ymm. Included by avx2 and avxvnni units only; see vec_avx512.h.
#pragma once
#include <immintrin.h>

#include "albireo/encoded.h"
#include "simd/e4m3_avx2.h"

#define ALBIREO_INLINE inline __attribute__((always_inline))

namespace {
using albireo::bf16;
using albireo::f16;

struct V {
  __m256 lo, hi;
};
constexpr int kTileVectors = 1;
#ifdef ALBIREO_HAVE_BYTE_DOT
constexpr int kTileRows = 6;  // by 16 columns: of 16 registers 12, a token's, two of codes
constexpr int kFewRows = 6;
#else
constexpr int kTileRows = 5;  // 10 of 16 registers (with 6 rows g++ spills)
constexpr int kFewRows = 4;   // of weights in few bits, up to which they are multiplied as they lie
#endif
constexpr int kRegisters = 8;  // of 16 numbers each

ALBIREO_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
ALBIREO_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ALBIREO_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ALBIREO_INLINE __m256 widen_bf16(__m128i v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
ALBIREO_INLINE V load(const bf16* p) {
  return {widen_bf16(_mm_loadu_si128((const __m128i*)p)), widen_bf16(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
ALBIREO_INLINE V load(const f16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
// e8m0, without NaN; its code 0 is 2^-127.
ALBIREO_INLINE __m256 e8m0_of(__m256i code) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_slli_epi32(code, 23), _mm256_set1_epi32(1 << 22)));
}
ALBIREO_INLINE V load_e8m0(const uint8_t* p) {
  return {e8m0_of(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))),
          e8m0_of(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
}
// e4m3, whose codes of NaN are read as 480: a float16 of another bias.
ALBIREO_INLINE V load_e4m3(const uint8_t* p) {
  const __m256i c = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(c, 7), _mm256_set1_epi16((short)0xbf80));
  const __m256 scale = _mm256_set1_ps(256.0f);
  return {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), scale),
          _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)), scale)};
}
ALBIREO_INLINE void store(float* p, V v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
ALBIREO_INLINE __m256i bf16_bits(__m256 v) {  // nearest even, in the low half of each lane; NaN stays NaN
  __m256i u = _mm256_castps_si256(v);
  __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff))), 16);
  __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
ALBIREO_INLINE __m256i to_bf16(V v) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi)), 0xd8);
}
ALBIREO_INLINE __m256i to_f16(V v) { return _mm256_set_m128i(_mm256_cvtps_ph(v.hi, 0), _mm256_cvtps_ph(v.lo, 0)); }
ALBIREO_INLINE void store(bf16* p, V v) { _mm256_storeu_si256((__m256i*)p, to_bf16(v)); }
ALBIREO_INLINE void store(f16* p, V v) { _mm256_storeu_si256((__m256i*)p, to_f16(v)); }

// Whole numbers: 16 lanes of pairs of int16, or of int32 sums, in the bits of a V.
ALBIREO_INLINE void store(int16_t* p, V v) {  // nearest even
  const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(both, 0xd8));
}
ALBIREO_INLINE void store_two(int16_t* p, V first, V second) { store(p, first), store(p + 16, second); }
ALBIREO_INLINE V whole_pairs(const int8_t* p) {
  return {_mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p))),
          _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(p + 16))))};
}
ALBIREO_INLINE V every_pair(const int16_t* p) {  // the pair at p, in each lane
  const __m256 pair = _mm256_broadcast_ss((const float*)p);
  return {pair, pair};
}
ALBIREO_INLINE __m256 add_dots8(__m256 sums, __m256 pairs, __m256 others) {
  const __m256i dots = _mm256_madd_epi16(_mm256_castps_si256(pairs), _mm256_castps_si256(others));
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sums), dots));
}
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
  sums = {add_dots8(sums.lo, pairs.lo, others.lo), add_dots8(sums.hi, pairs.hi, others.hi)};
}
ALBIREO_INLINE V from_whole(V sums) {
  return {_mm256_cvtepi32_ps(_mm256_castps_si256(sums.lo)), _mm256_cvtepi32_ps(_mm256_castps_si256(sums.hi))};
}

template <class T>
ALBIREO_INLINE void copy_n(T* to, const T* from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = from[i];
}
ALBIREO_INLINE V load_n(const float* p, int64_t n) {
  alignas(32) float tmp[16] = {};
  copy_n(tmp, p, n);
  return load(tmp);
}
template <class T>
ALBIREO_INLINE void store_n(T* p, V v, int64_t n) {
  alignas(32) T tmp[16];
  store(tmp, v);
  copy_n(p, tmp, n);
}

ALBIREO_INLINE V add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V max(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V min(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
ALBIREO_INLINE V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
ALBIREO_INLINE V round_even(V a) { return {_mm256_round_ps(a.lo, 8), _mm256_round_ps(a.hi, 8)}; }
ALBIREO_INLINE __m256 power2(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
ALBIREO_INLINE V scale2(V a, V n) { return {_mm256_mul_ps(a.lo, power2(n.lo)), _mm256_mul_ps(a.hi, power2(n.hi))}; }
ALBIREO_INLINE V floor_of(V a) { return {_mm256_floor_ps(a.lo), _mm256_floor_ps(a.hi)}; }
ALBIREO_INLINE V above_floor(V a) { return sub(a, floor_of(a)); }
ALBIREO_INLINE V scale2_floor(V a, V t) {  // a * 2^floor(t), for t < 127; as for -126 below that
  const V low = {_mm256_set1_ps(-126.0f), _mm256_set1_ps(-126.0f)};
  return scale2(a, max(low, floor_of(t)));
}
ALBIREO_INLINE __m256 keep8(__m256 a, int64_t low, int64_t high, __m256 b) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  int lo = low < -1 ? -1 : low > 8 ? 8 : (int)low, hi = high < -1 ? -1 : high > 8 ? 8 : (int)high;
  __m256i in = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane),
                                   _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(in));
}
ALBIREO_INLINE V keep(V a, int64_t low, int64_t high, V b) {
  return {keep8(a.lo, low, high, b.lo), keep8(a.hi, low - 8, high - 8, b.hi)};
}
ALBIREO_INLINE float sum(V v) {
  __m256 a = _mm256_add_ps(v.lo, v.hi);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
ALBIREO_INLINE float hmax(V v) {
  __m256 a = _mm256_max_ps(v.lo, v.hi);
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

// Pairs of bf16, in the bits of a V: the numbers in the low halves, and in the high ones.
ALBIREO_INLINE __m256 even8(__m256 pairs) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
ALBIREO_INLINE __m256 odd8(__m256 pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32((int)0xffff0000)));
}
ALBIREO_INLINE V even_of(V pairs) { return {even8(pairs.lo), even8(pairs.hi)}; }
ALBIREO_INLINE V odd_of(V pairs) { return {odd8(pairs.lo), odd8(pairs.hi)}; }
ALBIREO_INLINE V pair_even(const bf16* p) { return even_of(load((const float*)p)); }
ALBIREO_INLINE V pair_odd(const bf16* p) { return odd_of(load((const float*)p)); }
// 16 columns of four k of e4m3: pairs of the first two k, or of the other two.
ALBIREO_INLINE V e4m3_pairs(const uint8_t* at, bool is_second) {
  return {_mm256_castsi256_ps(e4m3_pairs8(at, is_second)), _mm256_castsi256_ps(e4m3_pairs8(at + 32, is_second))};
}
ALBIREO_INLINE void prefetch_l1(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
ALBIREO_INLINE void prefetch_l2(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

// Whole numbers, 16 lanes of 32 bits.
struct VI {
  __m256i lo, hi;
};
struct Codes {  // 16 columns of four unsigned 8-bit codes
  __m256i lo, hi;
};
ALBIREO_INLINE VI izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
ALBIREO_INLINE VI iload(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
ALBIREO_INLINE void istore(int32_t* p, VI v) {
  _mm256_storeu_si256((__m256i*)p, v.lo);
  _mm256_storeu_si256((__m256i*)(p + 8), v.hi);
}
ALBIREO_INLINE VI iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
ALBIREO_INLINE VI isub(VI a, VI b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
ALBIREO_INLINE VI iadd(VI a, VI b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
ALBIREO_INLINE VI imul(VI a, VI b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
ALBIREO_INLINE VI low_byte(VI a) {
  const __m256i mask = _mm256_set1_epi32(0xff);
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
ALBIREO_INLINE V to_float(VI a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
ALBIREO_INLINE V without_low_byte(VI a) {  // the float32 whose last 8 bits are spare
  const __m256i mask = _mm256_set1_epi32(0xff);
  return {_mm256_castsi256_ps(_mm256_andnot_si256(mask, a.lo)), _mm256_castsi256_ps(_mm256_andnot_si256(mask, a.hi))};
}
ALBIREO_INLINE VI bytes_to_ints(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8)))};
}
ALBIREO_INLINE void store_codes(int8_t* p, V v) {  // whole numbers from -127 to 127
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
ALBIREO_INLINE Codes load_codes(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
ALBIREO_INLINE Codes low_nibbles(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(c.lo, mask), _mm256_and_si256(c.hi, mask)};
}
ALBIREO_INLINE Codes high_nibbles(Codes c) {
  return low_nibbles({_mm256_srli_epi16(c.lo, 4), _mm256_srli_epi16(c.hi, 4)});
}
// Of each byte the bits of kMask, after they are moved down by kShift, or up.
template <int kShift, int kMask>
ALBIREO_INLINE Codes bits_of_codes(Codes c) {
  const __m256i mask = _mm256_set1_epi8(kMask);
  if constexpr (kShift >= 0)
    return {_mm256_and_si256(_mm256_srli_epi16(c.lo, kShift), mask),
            _mm256_and_si256(_mm256_srli_epi16(c.hi, kShift), mask)};
  else
    return {_mm256_and_si256(_mm256_slli_epi16(c.lo, -kShift), mask),
            _mm256_and_si256(_mm256_slli_epi16(c.hi, -kShift), mask)};
}
ALBIREO_INLINE Codes either(Codes a, Codes b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
ALBIREO_INLINE void store_codes(uint8_t* p, Codes c) {
  _mm256_storeu_si256((__m256i*)p, c.lo);
  _mm256_storeu_si256((__m256i*)(p + 32), c.hi);
}
#ifdef ALBIREO_HAVE_BYTE_DOT
// As vec_avx512.h has it: codes as they are, and sums of 32 bits alone.
constexpr int32_t kDotZero = 0;
constexpr int narrow_dots(int) { return 0; }
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      __m256i x;
      asm("vpbroadcastd %3, %2\n\t%{vex%} vpdpbusd %2, %4, %0\n\t%{vex%} vpdpbusd %2, %5, %1"
          : "+x"(acc[i][j].lo), "+x"(acc[i][j].hi), "=&x"(x)
          : "m"(*(const int32_t*)(a + i * lda)), "x"(w[j].lo), "x"(w[j].hi));
    }
}
template <bool kFirst, int MR, int NV>  // of no use where narrow_dots() is 0
ALBIREO_INLINE void narrow_dot4(VI (&)[MR][NV], const Codes (&)[NV], const int8_t*, int64_t);
ALBIREO_INLINE VI widened(VI pairs) { return pairs; }
#else
// acc[i][j] += four products of column codes w[j], less 128 unless all are small, and row codes at a + i * lda,
// exactly: of two codes a size and the other's with its sign, a pair of products is 2 * 128 * 127 at most and fits in
// 16 bits. In instructions, since of intrinsics g++ 12 loads all rows first and then has no registers left for sums.
constexpr int32_t kDotZero = 128;
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
  const __m256i ones = _mm256_set1_epi16(1), sign = _mm256_set1_epi8((char)0x80);
#pragma GCC unroll 32
  for (int j = 0; j < NV; j++) {
#pragma GCC unroll 2
    for (int high = 0; high < 2; high++) {
      if constexpr (kSmall) {  // as they are
#pragma GCC unroll 32
        for (int i = 0; i < MR; i++) {
          __m256i x;
          asm("vpbroadcastd %2, %1\n\tvpmaddubsw %1, %3, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
              : "+x"(high ? acc[i][j].hi : acc[i][j].lo), "=&x"(x)
              : "m"(*(const int32_t*)(a + i * lda)), "x"(high ? w[j].hi : w[j].lo), "x"(ones));
        }
        continue;
      }
      const __m256i code = _mm256_xor_si256(high ? w[j].hi : w[j].lo, sign), size = _mm256_abs_epi8(code);
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++) {
        __m256i x;
        asm("vpbroadcastd %2, %1\n\tvpsignb %3, %1, %1\n\tvpmaddubsw %1, %4, %1\n\t"
            "vpmaddwd %5, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(high ? acc[i][j].hi : acc[i][j].lo), "=&x"(x)
            : "m"(*(const int32_t*)(a + i * lda)), "x"(code), "x"(size), "x"(ones));
      }
    }
  }
}
// The same of small codes, as they are: pairs of products are added in 16 bits, narrow_dots(largest code) times before
// these sums have to be widened. kFirst: to nothing.
constexpr int narrow_dots(int largest) { return 32767 / (2 * 127 * largest); }
template <bool kFirst, int MR, int NV>
ALBIREO_INLINE void narrow_dot4(VI (&pairs)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      const int32_t& four = *(const int32_t*)(a + i * lda);
      if constexpr (kFirst) {
        asm("vpbroadcastd %2, %1\n\tvpmaddubsw %1, %3, %0\n\tvpmaddubsw %1, %4, %1"
            : "=&x"(pairs[i][j].lo), "=&x"(pairs[i][j].hi)
            : "m"(four), "x"(w[j].lo), "x"(w[j].hi));
      } else {
        __m256i x, low;
        asm("vpbroadcastd %4, %2\n\tvpmaddubsw %2, %5, %3\n\tvpaddw %3, %0, %0\n\t"
            "vpmaddubsw %2, %6, %2\n\tvpaddw %2, %1, %1"
            : "+x"(pairs[i][j].lo), "+x"(pairs[i][j].hi), "=&x"(x), "=&x"(low)
            : "m"(four), "x"(w[j].lo), "x"(w[j].hi));
      }
    }
}
ALBIREO_INLINE VI widened(VI pairs) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(pairs.lo, ones), _mm256_madd_epi16(pairs.hi, ones)};
}
#endif
// Of each code below 16 that of a table of so many.
ALBIREO_INLINE Codes looked_up(const uint8_t* table, Codes c) {
  const __m256i of_lanes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  return {_mm256_shuffle_epi8(of_lanes, c.lo), _mm256_shuffle_epi8(of_lanes, c.hi)};
}
// (code - zero) * gamma + 128 of each column; gammas [16], zeros [16].
struct Spread {
  __m256i gamma[2], base[2];  // 16 bits, twice a column; base: 128 - zero * gamma
  explicit ALBIREO_INLINE Spread(const uint8_t* p) {
    for (int i = 0; i < 2; i++) {
      const __m256i g = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8 * i)));
      const __m256i z = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 16 + 8 * i)));
      gamma[i] = _mm256_or_si256(g, _mm256_slli_epi32(g, 16));
      const __m256i zero = _mm256_or_si256(z, _mm256_slli_epi32(z, 16));
      base[i] = _mm256_sub_epi16(_mm256_set1_epi16(128), _mm256_mullo_epi16(zero, gamma[i]));
    }
  }
  ALBIREO_INLINE __m256i half(__m256i c, int i) const {
    const __m256i even = _mm256_and_si256(c, _mm256_set1_epi16(0xff)), odd = _mm256_srli_epi16(c, 8);
    const __m256i low = _mm256_add_epi16(_mm256_mullo_epi16(even, gamma[i]), base[i]);
    const __m256i high = _mm256_add_epi16(_mm256_mullo_epi16(odd, gamma[i]), base[i]);
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 8));
  }
  ALBIREO_INLINE Codes bytes(Codes c) const { return {half(c.lo, 0), half(c.hi, 1)}; }
};
}  // namespace
