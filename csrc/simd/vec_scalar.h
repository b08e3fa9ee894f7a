// The vector vocabulary, 16 lanes = an array. Runs everywhere; the reference the other levels are compared with.
// There is no fused multiply-add here: portable hardware has none, and a library call per lane would be unusable.
#pragma once
#include <cmath>
#include <cstring>

#include "albireo/encoded.h"

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
// e8m0, without NaN; its code 0 is 2^-127.
ALBIREO_INLINE V load_e8m0(const uint8_t* p) { ALBIREO_LANES(float_of(p[i] ? (uint32_t)p[i] << 23 : 1u << 22)); }
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
ALBIREO_INLINE V above_floor(V a) { ALBIREO_LANES(a.v[i] - std::floor(a.v[i])); }
ALBIREO_INLINE V scale2_floor(V a, V t) {  // a * 2^floor(t), for t < 127; as for -126 below that
  for (int i = 0; i < 16; i++) t.v[i] = t.v[i] > -126.0f ? std::floor(t.v[i]) : -126.0f;
  return scale2(a, t);
}
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

// Whole numbers, 16 lanes of 32 bits.
struct VI {
  int32_t v[16];
};
struct Codes {  // 16 columns of four unsigned 8-bit codes
  uint8_t v[64];
};
ALBIREO_INLINE VI izero() { return {}; }
ALBIREO_INLINE VI iload(const int32_t* p) {
  VI r;
  memcpy(r.v, p, 64);
  return r;
}
ALBIREO_INLINE void istore(int32_t* p, VI v) { memcpy(p, v.v, 64); }
ALBIREO_INLINE VI iset1(int32_t x) {
  VI r;
  for (int i = 0; i < 16; i++) r.v[i] = x;
  return r;
}
ALBIREO_INLINE VI isub(VI a, VI b) {
  for (int i = 0; i < 16; i++) a.v[i] -= b.v[i];
  return a;
}
ALBIREO_INLINE VI imul(VI a, VI b) {
  for (int i = 0; i < 16; i++) a.v[i] *= b.v[i];
  return a;
}
ALBIREO_INLINE VI iadd(VI a, VI b) {
  for (int i = 0; i < 16; i++) a.v[i] += b.v[i];
  return a;
}
ALBIREO_INLINE VI low_byte(VI a) {
  for (int i = 0; i < 16; i++) a.v[i] &= 0xff;
  return a;
}
ALBIREO_INLINE V to_float(VI a) {
  V r;
  for (int i = 0; i < 16; i++) r.v[i] = (float)a.v[i];
  return r;
}
ALBIREO_INLINE V without_low_byte(VI a) {  // the float32 whose last 8 bits are spare
  V r;
  for (int i = 0; i < 16; i++) r.v[i] = float_of((uint32_t)a.v[i] & ~0xffu);
  return r;
}
ALBIREO_INLINE VI bytes_to_ints(const uint8_t* p) {
  VI r;
  for (int i = 0; i < 16; i++) r.v[i] = p[i];
  return r;
}
ALBIREO_INLINE void store_codes(int8_t* p, V v) {  // whole numbers from -127 to 127
  for (int i = 0; i < 16; i++) p[i] = (int8_t)(int32_t)v.v[i];
}
ALBIREO_INLINE Codes load_codes(const uint8_t* p) {
  Codes r;
  memcpy(r.v, p, 64);
  return r;
}
ALBIREO_INLINE Codes low_nibbles(Codes c) {
  for (int i = 0; i < 64; i++) c.v[i] &= 15;
  return c;
}
ALBIREO_INLINE Codes high_nibbles(Codes c) {
  for (int i = 0; i < 64; i++) c.v[i] >>= 4;
  return c;
}
ALBIREO_INLINE void store_codes(uint8_t* p, Codes c) { memcpy(p, c.v, 64); }
// acc[i][j] += four products of column codes w[j] and row codes at a + i * lda, exactly.
template <int MR, int NV>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < NV; j++)
      for (int c = 0; c < 16; c++)
        for (int e = 0; e < 4; e++) acc[i][j].v[c] += (int32_t)w[j].v[4 * c + e] * a[i * lda + e];
}
// Of each e2m1 code twice its number plus 12.
ALBIREO_INLINE Codes twice_e2m1(Codes c) {
  for (int i = 0; i < 64; i++) c.v[i] = albireo::kTwiceE2M1[c.v[i]];
  return c;
}
// (code - zero) * gamma + 128 of each column; gammas [16], zeros [16].
struct Spread {
  const uint8_t *gamma, *zero;
  explicit Spread(const uint8_t* p) : gamma(p), zero(p + 16) {}
  Codes bytes(Codes c) const {
    for (int i = 0; i < 64; i++) c.v[i] = (uint8_t)((c.v[i] - zero[i / 4]) * gamma[i / 4] + 128);
    return c;
  }
};
}  // namespace
