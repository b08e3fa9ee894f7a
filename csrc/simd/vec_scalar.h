// The vector vocabulary of the level that asks for nothing: every x86-64 (SSE2) and every 64-bit Arm has vectors of
// four. The reference the other levels are compared with. There is no fused multiply-add here: portable hardware has
// none, and a library call per lane would be unusable.
#pragma once
#include "simd/quads.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {
constexpr int kTileRows = 4;
constexpr int kRegisters = 0;  // what stays in them is left to the compiler

ALBIREO_INLINE uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
ALBIREO_INLINE float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
ALBIREO_INLINE float widen(float x) { return x; }
ALBIREO_INLINE float widen(bf16 x) { return float_of((uint32_t)x.bits << 16); }
ALBIREO_INLINE float widen(f16 x) {
  uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, exponent = (x.bits >> 10) & 31, mantissa = x.bits & 0x3ff;
  if (exponent == 31) return float_of(sign | 0x7f800000 | mantissa << 13);
  if (exponent) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
  float tiny = (float)mantissa * 0x1p-24f;
  return sign ? -tiny : tiny;
}
ALBIREO_INLINE void narrow(float x, float* p) { *p = x; }
ALBIREO_INLINE void narrow(float x, int16_t* p) {  // nearest even; what is no number becomes 0
  *p = x == x ? (int16_t)((x + 0x1.8p23f) - 0x1.8p23f) : (int16_t)0;
}
ALBIREO_INLINE void narrow(float x, bf16* p) {
  uint32_t u = bits_of(x);
  p->bits = x != x ? (uint16_t)(u >> 16 | 0x40) : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
ALBIREO_INLINE void narrow(float x, f16* p) {
  uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) {
    p->bits = (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    return;
  }
  if (a >= 0x477ff000) {  // rounds to infinity from 65520 on
    p->bits = (uint16_t)(sign | 0x7c00);
    return;
  }
  if (a < 0x38800000) {  // below the smallest normal: adding 0.5 leaves the rounded mantissa in the low bits
    p->bits = (uint16_t)(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000));
    return;
  }
  p->bits = (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}

ALBIREO_INLINE F4 fma_of(F4 a, F4 b, F4 c) { return a * b + c; }
ALBIREO_INLINE F4 floor_of(F4 x) {
  F4 cut = from_ints(to_ints(x)), down = cut > x ? cut - 1.0f : cut;
  return (I4)((U4)x & 0x7fffffff) < 0x4b000000 ? down : x;  // from 2^23 on all are whole, or no numbers
}
ALBIREO_INLINE F4 round_of(F4 x) { return (x + 0x1.8p23f) - 0x1.8p23f; }  // |x| < 2^22
ALBIREO_INLINE F4 widen_f16(U4 h) {
  U4 sign = (h & 0x8000) << 16, body = (h & 0x7fff) << 13;
  U4 normal = body + (112u << 23), tiny = (U4)(from_ints((I4)(h & 0x3ff)) * 0x1p-24f);
  U4 large = body + (224u << 23);
  U4 r = (I4)(h & 0x7fff) < 0x400 ? tiny : (I4)(h & 0x7fff) < 0x7c00 ? normal : large;
  return (F4)(r | sign);
}
template <class T>
ALBIREO_INLINE void store_n(T* p, V v, int64_t n) {
  float lanes[16];
  memcpy(lanes, &v, 64);
  for (int i = 0; i < n; i++) narrow(lanes[i], p + i);
}
template <class T>
ALBIREO_INLINE void store(T* p, V v) {
  store_n(p, v, 16);
}
template <class T>
ALBIREO_INLINE void store_two(T* p, V first, V second) {
  store(p, first), store(p + 16, second);
}
ALBIREO_INLINE void prefetch_l1(const char* p) { (void)p; }
ALBIREO_INLINE void prefetch_l2(const char* p) { (void)p; }

#if defined(__SSE2__)  // which has no products of 32 bits
ALBIREO_INLINE I4 pair_dots(I4 a, I4 b) { return (I4)_mm_madd_epi16((__m128i)a, (__m128i)b); }
ALBIREO_INLINE B16 pack_ints(I4 a, I4 b, I4 c, I4 d) {
  return (B16)_mm_packs_epi16(_mm_packs_epi32((__m128i)a, (__m128i)b), _mm_packs_epi32((__m128i)c, (__m128i)d));
}
#else
ALBIREO_INLINE I4 pair_dots(I4 a, I4 b) { return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16); }
ALBIREO_INLINE B16 pack_ints(I4 a, I4 b, I4 c, I4 d) {
  const W8 low = __builtin_shufflevector((W8)a, (W8)b, 0, 2, 4, 6, 8, 10, 12, 14);
  const W8 high = __builtin_shufflevector((W8)c, (W8)d, 0, 2, 4, 6, 8, 10, 12, 14);
  return __builtin_shufflevector((B16)low, (B16)high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
#endif
ALBIREO_INLINE W8 tiny_e4m3(B16 twice) {
  const W8 m = (W8)twice & 7;
  return m < 2 ? m * 0x3b00 : m < 4 ? m * 0x40 + 0x3b00 : m * 0x20 + 0x3b80;
}
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
  sums = quarters<V>([&](int q) { return (F4)((I4)sums.q[q] + pair_dots((I4)pairs.q[q], (I4)others.q[q])); });
}
ALBIREO_INLINE Codes high_nibbles(Codes c) {
  return quarters<Codes>([&](int q) { return (B16)((W8)c.q[q] >> 4) & 15; });
}
// The zero of column codes in dot4 unless all are small, which is below 128, and how often products of codes up to
// `largest` can be added in 16 bits.
constexpr int32_t kDotZero = 0;
constexpr int narrow_dots(int) { return 0; }
// acc[i][j] += four products of column codes w[j] and row codes at a + i * lda, exactly: of codes 0 and 2 of a column,
// and of 1 and 3, as pairs of 16 bits.
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
  for (int i = 0; i < MR; i++) {
    H8 codes = (H8)isplat(read<int32_t>(a + i * lda));
    I4 even = (I4)((H8)((W8)codes << 8) >> 8), odd = (I4)(codes >> 8);
    for (int j = 0; j < NV; j++)
      acc[i][j] = quarters<VI>([&](int q) {
        I4 low = (I4)((W8)w[j].q[q] & 0xff), high = (I4)((W8)w[j].q[q] >> 8);
        return acc[i][j].q[q] + (pair_dots(low, even) + pair_dots(high, odd));
      });
  }
}
// Of each code below 16 that of a table of so many.
ALBIREO_INLINE Codes looked_up(const uint8_t* table, Codes c) {
  uint8_t codes[64];
  memcpy(codes, &c, 64);
#pragma GCC unroll 1
  for (int i = 0; i < 64; i++) codes[i] = table[codes[i]];
  memcpy(&c, codes, 64);
  return c;
}
}  // namespace
