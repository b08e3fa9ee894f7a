// The vector vocabulary, 16 lanes = an array. Runs everywhere; the reference the other levels are compared with.
// There is no fused multiply-add here: portable hardware has none, and a library call per lane would be unusable.
#pragma once
#include <cmath>
#include <cstring>

#include "albireo/types.h"

#define ALBIREO_INLINE inline __attribute__((always_inline))

namespace {
using albireo::bf16;
using albireo::f16;

struct V {
  float v[16];
};
constexpr int kTileVectors = 1;
constexpr int kTileRows = 4;

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

#define ALBIREO_LANES(expr)                     \
  V r;                                          \
  for (int i = 0; i < 16; i++) r.v[i] = (expr); \
  return r
ALBIREO_INLINE V set1(float x) { ALBIREO_LANES(x); }
ALBIREO_INLINE V zero() { ALBIREO_LANES(0.0f); }
template <class T>
ALBIREO_INLINE V load(const T* p) {
  ALBIREO_LANES(widen(p[i]));
}
template <class T>
ALBIREO_INLINE void store(T* p, V v) {
  for (int i = 0; i < 16; i++) narrow(v.v[i], p + i);
}
// e4m3, whose codes of NaN are read as 480: a float16 of another bias.
ALBIREO_INLINE V load_e4m3(const uint8_t* p) {
  ALBIREO_LANES(256.0f * widen(f16{(uint16_t)((p[i] & 0x80) << 8 | (p[i] & 0x7f) << 7)}));
}
ALBIREO_INLINE V load_n(const float* p, int64_t n) { ALBIREO_LANES(i < n ? p[i] : 0.0f); }
template <class T>
ALBIREO_INLINE void store_n(T* p, V v, int64_t n) {
  for (int i = 0; i < n; i++) narrow(v.v[i], p + i);
}
ALBIREO_INLINE V add(V a, V b) { ALBIREO_LANES(a.v[i] + b.v[i]); }
ALBIREO_INLINE V sub(V a, V b) { ALBIREO_LANES(a.v[i] - b.v[i]); }
ALBIREO_INLINE V mul(V a, V b) { ALBIREO_LANES(a.v[i] * b.v[i]); }
ALBIREO_INLINE V div(V a, V b) { ALBIREO_LANES(a.v[i] / b.v[i]); }
ALBIREO_INLINE V max(V a, V b) { ALBIREO_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
ALBIREO_INLINE V min(V a, V b) { ALBIREO_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
ALBIREO_INLINE V fma(V a, V b, V c) { ALBIREO_LANES(a.v[i] * b.v[i] + c.v[i]); }
ALBIREO_INLINE V round_even(V a) { ALBIREO_LANES((a.v[i] + 0x1.8p23f) - 0x1.8p23f); }  // |a| < 2^22
ALBIREO_INLINE V scale2(V a, V n) { ALBIREO_LANES(a.v[i] * float_of((uint32_t)((int32_t)n.v[i] + 127) << 23)); }
ALBIREO_INLINE V keep(V a, int64_t low, int64_t high, V b) { ALBIREO_LANES(i >= low && i < high ? a.v[i] : b.v[i]); }
ALBIREO_INLINE float sum(V v) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) v.v[i] += v.v[i + half];
  return v.v[0];
}
ALBIREO_INLINE float hmax(V v) {
  float m = v.v[0];
  for (int i = 1; i < 16; i++) m = v.v[i] > m ? v.v[i] : m;
  return m;
}
ALBIREO_INLINE V pair_even(const bf16* p) { ALBIREO_LANES(widen(p[2 * i])); }
ALBIREO_INLINE V pair_odd(const bf16* p) { ALBIREO_LANES(widen(p[2 * i + 1])); }
// Whole numbers: 16 lanes of pairs of int16, or of int32 sums, in the bits of a V.
ALBIREO_INLINE uint32_t pair_bits(int16_t first, int16_t second) { return (uint16_t)first | (uint32_t)second << 16; }
ALBIREO_INLINE void store_two(int16_t* p, V first, V second) { store(p, first), store(p + 16, second); }
ALBIREO_INLINE V whole_pairs(const int8_t* p) { ALBIREO_LANES(float_of(pair_bits(p[2 * i], p[2 * i + 1]))); }
ALBIREO_INLINE V every_pair(const int16_t* p) { ALBIREO_LANES(float_of(pair_bits(p[0], p[1]))); }
ALBIREO_INLINE uint32_t dot_of(uint32_t a, uint32_t b) {
  return (uint32_t)((int16_t)a * (int16_t)b + (int16_t)(a >> 16) * (int16_t)(b >> 16));
}
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
  for (int i = 0; i < 16; i++)
    sums.v[i] = float_of(bits_of(sums.v[i]) + dot_of(bits_of(pairs.v[i]), bits_of(others.v[i])));
}
ALBIREO_INLINE V from_whole(V sums) { ALBIREO_LANES((float)(int32_t)bits_of(sums.v[i])); }
#undef ALBIREO_LANES
ALBIREO_INLINE void prefetch_l2(const char* p) { (void)p; }
}  // namespace
