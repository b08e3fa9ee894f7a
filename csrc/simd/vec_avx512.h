// The vector vocabulary, 16 lanes = one zmm. Included by avx512 units only; everything is in an unnamed namespace so
// that the linker can never hand this code to another ISA level.
#pragma once
#include <immintrin.h>

#include "albireo/split.h"
#include "simd/e4m3_avx2.h"
#include "simd/transpose_avx512.h"

#define ALBIREO_INLINE inline __attribute__((always_inline))

namespace {
using albireo::bf16;
using albireo::f16;

using V = __m512;
constexpr int kTileVectors = 4;  // a register tile is up to 6 (7 in attention) rows by 4 vectors: 24-28 of 32 registers
constexpr int kTileRows = 6;
constexpr int kRegisters = 32;  // of 16 numbers each
#define ALBIREO_TALL_ROWS       // or up to kTallRows by one vector

// out[s][i] = x[i][s] for steps words of a few rows, ld words apart.
inline void interleave_words(const uint32_t* x, int64_t ld, int64_t rows, int64_t steps, uint32_t* out) {
  for (int64_t i0 = 0; i0 < rows; i0 += 16)
    for (int64_t s = 0; s < steps; s += 16) {
      const int64_t ni = rows - i0 < 16 ? rows - i0 : 16, ns = steps - s < 16 ? steps - s : 16;
      const __mmask16 words = (__mmask16)((1u << ns) - 1), lanes = (__mmask16)((1u << ni) - 1);
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = _mm512_maskz_loadu_epi32(i < ni ? words : 0, x + (i0 + i) * ld + s);
      transpose_words(r);
      alignas(64) uint32_t tmp[16][16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) _mm512_store_si512(tmp[i], r[i]);
      for (int64_t i = 0; i < ns; i++)
        _mm512_mask_storeu_epi32(out + (s + i) * rows + i0, lanes, _mm512_load_si512(tmp[i]));
    }
}

ALBIREO_INLINE V set1(float x) { return _mm512_set1_ps(x); }
ALBIREO_INLINE V zero() { return _mm512_setzero_ps(); }
ALBIREO_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
ALBIREO_INLINE V load(const bf16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
ALBIREO_INLINE V load(const f16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
// e8m0, without NaN; its code 0 is 2^-127.
ALBIREO_INLINE V load_e8m0(const uint8_t* p) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)), 23);
  return _mm512_castsi512_ps(_mm512_max_epi32(exponent, _mm512_set1_epi32(1 << 22)));
}
// e4m3, whose codes of NaN are read as 480: a float16 of another bias.
ALBIREO_INLINE V load_e4m3(const uint8_t* p) {
  const __m256i c = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(c, 7), _mm256_set1_epi16((short)0xbf80));
  return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}
ALBIREO_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
#ifdef ALBIREO_HAVE_BF16_DOT
// Nearest even; NaN stays NaN; denormals become zero, as the dot product reads them anyway.
ALBIREO_INLINE __m256i to_bf16(V v) { return (__m256i)_mm512_cvtneps_pbh(v); }
#else
ALBIREO_INLINE __m256i to_bf16(V v) {  // nearest even; NaN stays NaN
  __m512i u = _mm512_castps_si512(v);
  __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(r);
}
#endif
ALBIREO_INLINE void store(bf16* p, V v) { _mm256_storeu_si256((__m256i*)p, to_bf16(v)); }
ALBIREO_INLINE void store(f16* p, V v) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, 0)); }

// Whole numbers: 16 lanes of pairs of int16, or of int32 sums, in the bits of a V.
ALBIREO_INLINE void store(int16_t* p, V v) {  // nearest even
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}
ALBIREO_INLINE void store_two(int16_t* p, V first, V second) {
  const __m512i lanes = _mm512_packs_epi32(_mm512_cvtps_epi32(first), _mm512_cvtps_epi32(second));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), lanes));
}
ALBIREO_INLINE V whole_pairs(const int8_t* p) {
  V pairs;
  asm("vpmovsxbw %1, %0" : "=v"(pairs) : "m"(*(const __m256i*)p));
  return pairs;
}
ALBIREO_INLINE V every_pair(const int16_t* p) {  // the pair at p, in each lane
  V pair;
  asm("vbroadcastss %1, %0" : "=v"(pair) : "m"(*(const float*)p));
  return pair;
}
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
#ifdef ALBIREO_HAVE_BF16_DOT  // and VNNI with it
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(pairs), "v"(others));
#else
  const __m512i dots = _mm512_madd_epi16(_mm512_castps_si512(pairs), _mm512_castps_si512(others));
  sums = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sums), dots));
#endif
}
ALBIREO_INLINE V from_whole(V sums) { return _mm512_cvtepi32_ps(_mm512_castps_si512(sums)); }

#ifdef __AVX512VBMI__
#define ALBIREO_HAVE_BYTE_TABLES  // of 128 entries
#endif
#ifdef ALBIREO_HAVE_BF16_DOT
ALBIREO_INLINE void store_two(bf16* p, V first, V second) {
  _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}
// acc[i][j] += both products of each pair of bf16 of w[j] and the pair at a + i * lda.
template <int MR, int NV>
ALBIREO_INLINE void bf16_dots(V (&acc)[MR][NV], const V (&w)[NV], const bf16* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    if constexpr (NV == 1) {  // one dot a broadcast: in one instruction
      asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc[i][0]) : "v"(w[0]), "m"(*(const float*)(a + i * lda)));
      continue;
    }
    // One broadcast a row, not one a dot: a core with two dots a cycle has two loads a cycle, and a broadcast from
    // memory in the dot itself would take one for each.
    V pair;
    asm("vbroadcastss %1, %0" : "=v"(pair) : "m"(*(const float*)(a + i * lda)));
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++)  // the intrinsic makes g++ 12 copy accumulators
      asm("vdpbf16ps %2, %1, %0" : "+v"(acc[i][j]) : "v"(w[j]), "v"(pair));
  }
}
#endif

ALBIREO_INLINE __mmask16 first(int64_t n) { return (__mmask16)((1u << n) - 1); }  // 0 < n < 16
ALBIREO_INLINE V load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
ALBIREO_INLINE void store_n(float* p, V v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
ALBIREO_INLINE void store_n(bf16* p, V v, int64_t n) { _mm256_mask_storeu_epi16(p, first(n), to_bf16(v)); }
ALBIREO_INLINE void store_n(f16* p, V v, int64_t n) { _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, 0)); }

ALBIREO_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
ALBIREO_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
ALBIREO_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
ALBIREO_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
ALBIREO_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
ALBIREO_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
ALBIREO_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
ALBIREO_INLINE V round_even(V a) { return _mm512_roundscale_ps(a, 0); }
ALBIREO_INLINE V scale2(V a, V n) { return _mm512_scalef_ps(a, n); }        // a * 2^n for whole n in [-126, 127]
ALBIREO_INLINE V above_floor(V a) { return _mm512_reduce_ps(a, 9); }        // a - floor(a)
ALBIREO_INLINE V scale2_floor(V a, V t) { return _mm512_scalef_ps(a, t); }  // a * 2^floor(t)
// lanes i with low <= i < high keep a, others become b
ALBIREO_INLINE V keep(V a, int64_t low, int64_t high, V b) {
  uint32_t up = high >= 16 ? 0xffffu : high <= 0 ? 0u : (1u << high) - 1;
  uint32_t down = low >= 16 ? 0xffffu : low <= 0 ? 0u : (1u << low) - 1;
  return _mm512_mask_mov_ps(b, (__mmask16)(up & ~down), a);
}
// the 16 lanes added in a fixed tree: (i, i+8), (i, i+4), (i, i+2), (i, i+1)
ALBIREO_INLINE float sum(V v) {
  __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
ALBIREO_INLINE float hmax(V v) { return _mm512_reduce_max_ps(v); }

// Weights of 16 columns at one k (f32, f16) or one pair of k (bf16: even k in the low half of each 32-bit lane).
ALBIREO_INLINE V even_of(V pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
ALBIREO_INLINE V odd_of(V pairs) {  // two shifts, not a mask: the tile has no register left for a constant
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(pairs), 16), 16));
}
ALBIREO_INLINE V pair_even(const bf16* p) { return even_of(load((const float*)p)); }
ALBIREO_INLINE V pair_odd(const bf16* p) { return odd_of(load((const float*)p)); }
#ifndef ALBIREO_HAVE_BYTE_TABLES
// 16 columns of four k of e4m3: pairs of the first two k, or of the other two.
ALBIREO_INLINE V e4m3_pairs(const uint8_t* at, bool is_second) {
  const __m512i low = _mm512_castsi256_si512(e4m3_pairs8(at, is_second));
  return _mm512_castsi512_ps(_mm512_inserti64x4(low, e4m3_pairs8(at + 32, is_second), 1));
}
#endif

#define ALBIREO_HAVE_TRANSPOSE  // what writes a KV cache of bf16 pairs in runs
// even and odd of 16 channels, side by side
ALBIREO_INLINE void store_pairs(bf16* p, V even, V odd) {
  const __m512i low = _mm512_cvtepu16_epi32(to_bf16(even)), high = _mm512_cvtepu16_epi32(to_bf16(odd));
  _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
ALBIREO_INLINE __m512i pack_pairs(V first, V second) {  // 32 channels, rounded, as 16 words
  return _mm512_inserti64x4(_mm512_castsi256_si512(to_bf16(first)), to_bf16(second), 1);
}
ALBIREO_INLINE void store_words(uint32_t* p, __m512i words, uint32_t mask) {
  _mm512_mask_storeu_epi32(p, (__mmask16)mask, words);
}
ALBIREO_INLINE void prefetch_l1(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
ALBIREO_INLINE void prefetch_l2(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

// Whole numbers, 16 lanes of 32 bits.
using VI = __m512i;
using Codes = __m512i;  // 16 columns of four unsigned 8-bit codes
ALBIREO_INLINE VI izero() { return _mm512_setzero_si512(); }
ALBIREO_INLINE VI iload(const int32_t* p) { return _mm512_loadu_si512(p); }
ALBIREO_INLINE void istore(int32_t* p, VI v) { _mm512_storeu_si512(p, v); }
ALBIREO_INLINE VI iset1(int32_t x) { return _mm512_set1_epi32(x); }
ALBIREO_INLINE VI isub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
ALBIREO_INLINE VI iadd(VI a, VI b) { return _mm512_add_epi32(a, b); }
ALBIREO_INLINE VI imul(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
ALBIREO_INLINE VI low_byte(VI a) { return _mm512_and_si512(a, _mm512_set1_epi32(0xff)); }
ALBIREO_INLINE V to_float(VI a) { return _mm512_cvtepi32_ps(a); }
ALBIREO_INLINE V without_low_byte(VI a) {  // the float32 whose last 8 bits are spare
  return _mm512_castsi512_ps(_mm512_andnot_si512(_mm512_set1_epi32(0xff), a));
}
ALBIREO_INLINE VI bytes_to_ints(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
ALBIREO_INLINE void store_codes(int8_t* p, V v) {  // whole numbers from -127 to 127
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
ALBIREO_INLINE Codes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
ALBIREO_INLINE Codes low_nibbles(Codes c) { return _mm512_and_si512(c, _mm512_set1_epi8(15)); }
ALBIREO_INLINE Codes high_nibbles(Codes c) { return low_nibbles(_mm512_srli_epi16(c, 4)); }
// Of each byte the bits of kMask, after they are moved down by kShift, or up.
template <int kShift, int kMask>
ALBIREO_INLINE Codes bits_of_codes(Codes c) {
  const __m512i mask = _mm512_set1_epi8(kMask);
  if constexpr (kShift >= 0) return _mm512_and_si512(_mm512_srli_epi16(c, kShift), mask);
  else return _mm512_and_si512(_mm512_slli_epi16(c, -kShift), mask);
}
ALBIREO_INLINE Codes either(Codes a, Codes b) { return _mm512_or_si512(a, b); }
ALBIREO_INLINE Codes less(Codes a, Codes b) { return _mm512_sub_epi8(a, b); }
ALBIREO_INLINE Codes four_times(VI a) { return imul(a, iset1(0x01010101)); }  // numbers below 256 in each byte
ALBIREO_INLINE void store_codes(uint8_t* p, Codes c) { _mm512_storeu_si512(p, c); }
// The zero of column codes in dot4 unless all are small, which is below 128, and how often products of codes up to
// `largest` can be added in 16 bits.
constexpr int32_t kDotZero = 0;
// acc[i][j] += four products of column codes w[j] and row codes at a + i * lda, exactly.
#ifdef ALBIREO_HAVE_BYTE_DOT
constexpr int narrow_dots(int) { return 0; }
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    if constexpr (NV == 1) {  // one dot a broadcast: in one instruction
      asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[i][0]) : "v"(w[0]), "m"(*(const int32_t*)(a + i * lda)));
      continue;
    }
    VI four;
    asm("vpbroadcastd %1, %0" : "=v"(four) : "m"(*(const int32_t*)(a + i * lda)));
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++)  // the intrinsic makes g++ 12 copy accumulators
      asm("vpdpbusd %2, %1, %0" : "+v"(acc[i][j]) : "v"(w[j]), "v"(four));
  }
}
template <bool kFirst, int MR, int NV>  // of no use where narrow_dots() is 0
ALBIREO_INLINE void narrow_dot4(VI (&)[MR][NV], const Codes (&)[NV], const int8_t*, int64_t);
ALBIREO_INLINE VI widened(VI pairs) { return pairs; }
#else
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
  if constexpr (kSmall) {  // a pair of products is 2 * 127 * 127 at most
    const VI ones = _mm512_set1_epi16(1);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) {
      const VI four = _mm512_set1_epi32(*(const int32_t*)(a + i * lda));
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++)
        acc[i][j] = iadd(acc[i][j], _mm512_madd_epi16(_mm512_maddubs_epi16(w[j], four), ones));
    }
    return;
  }
  const VI mask = _mm512_set1_epi32(0x00ff00ff);
#pragma GCC unroll 2
  for (int odd = 0; odd < 2; odd++) {  // as 16-bit numbers: the even codes, then the odd
    VI half[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) half[j] = odd ? _mm512_srli_epi16(w[j], 8) : _mm512_and_si512(w[j], mask);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) {
      const VI four = _mm512_set1_epi32(*(const int32_t*)(a + i * lda));
      const VI x = _mm512_srai_epi16(odd ? four : _mm512_slli_epi16(four, 8), 8);
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) acc[i][j] = iadd(acc[i][j], _mm512_madd_epi16(half[j], x));
    }
  }
}
// As vec_avx2.h has it: pairs of products of small codes are added in 16 bits, the first to nothing.
constexpr int narrow_dots(int largest) { return 32767 / (2 * 127 * largest); }
template <bool kFirst, int MR, int NV>
ALBIREO_INLINE void narrow_dot4(VI (&pairs)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    VI four;
    asm("vpbroadcastd %1, %0" : "=v"(four) : "m"(*(const int32_t*)(a + i * lda)));
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      VI two;
      if constexpr (kFirst) asm("vpmaddubsw %1, %2, %0" : "=v"(pairs[i][j]) : "v"(four), "v"(w[j]));
      else asm("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0" : "+v"(pairs[i][j]), "=&v"(two) : "v"(four), "v"(w[j]));
    }
  }
}
ALBIREO_INLINE VI widened(VI pairs) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)); }
#endif
// Of each code below 16 that of a table of so many.
ALBIREO_INLINE Codes looked_up(const uint8_t* table, Codes c) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), c);
}
// (code - zero) * gamma + 128 of each column; gammas [16], zeros [16].
struct Spread {
  __m512i gamma, base;  // 16 bits, twice a column; base: 128 - zero * gamma
  explicit ALBIREO_INLINE Spread(const uint8_t* p) {
    gamma = _mm512_or_si512(bytes_to_ints(p), _mm512_slli_epi32(bytes_to_ints(p), 16));
    const __m512i zero = _mm512_or_si512(bytes_to_ints(p + 16), _mm512_slli_epi32(bytes_to_ints(p + 16), 16));
    base = _mm512_sub_epi16(_mm512_set1_epi16(128), _mm512_mullo_epi16(zero, gamma));
  }
  ALBIREO_INLINE Codes bytes(Codes c) const {
    const __m512i even = _mm512_and_si512(c, _mm512_set1_epi16(0xff)), odd = _mm512_srli_epi16(c, 8);
    const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(even, gamma), base);
    const __m512i high = _mm512_add_epi16(_mm512_mullo_epi16(odd, gamma), base);
    return _mm512_or_si512(low, _mm512_slli_epi16(high, 8));
  }
};
}  // namespace
