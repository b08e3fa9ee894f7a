// The vector vocabulary of the level that asks for nothing: 16 lanes = four vectors of four, which every x86-64 has
// (SSE2). The reference the other levels are compared with. Most of it is arithmetic on the compiler's own vector
// types: lanes in arrays, left to its vectorizer, took five times as long to compile, a third of the whole module.
// There is no fused multiply-add here: portable hardware has none, and a library call per lane would be unusable.
#pragma once
#include <emmintrin.h>

#include <cstring>

#include "albireo/encoded.h"

#define ALBIREO_INLINE inline __attribute__((always_inline))

namespace {
using albireo::bf16;
using albireo::f16;

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef uint32_t U4 __attribute__((vector_size(16)));
typedef int16_t H8 __attribute__((vector_size(16)));
typedef uint16_t W8 __attribute__((vector_size(16)));
typedef uint8_t B16 __attribute__((vector_size(16)));

struct V {
  F4 q[4];
};
constexpr int kTileVectors = 1;
constexpr int kTileRows = 4;

// What f(q) gives for each quarter.
template <class T, class F>
ALBIREO_INLINE T quarters(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}
template <class T, class P>
ALBIREO_INLINE T read(const P* p) {
  T r;
  memcpy(&r, p, sizeof(r));
  return r;
}

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

// Of 16 bits, or 8, in lanes of 32: those of quarter q.
ALBIREO_INLINE U4 widen_low(W8 x) { return (U4)_mm_unpacklo_epi16((__m128i)x, _mm_setzero_si128()); }
ALBIREO_INLINE U4 widen_high(W8 x) { return (U4)_mm_unpackhi_epi16((__m128i)x, _mm_setzero_si128()); }
ALBIREO_INLINE U4 widen_half(const uint16_t* p, int q) {
  return q % 2 ? widen_high(read<W8>(p + 8 * (q / 2))) : widen_low(read<W8>(p + 8 * (q / 2)));
}
ALBIREO_INLINE U4 widen_bytes(const uint8_t* p, int q) {
  __m128i bytes = _mm_cvtsi32_si128(read<int32_t>(p + 4 * q)), none = _mm_setzero_si128();
  return (U4)_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, none), none);
}
ALBIREO_INLINE F4 splat(float x) { return F4{x, x, x, x}; }
ALBIREO_INLINE I4 isplat(int32_t x) { return I4{x, x, x, x}; }
ALBIREO_INLINE F4 from_ints(I4 x) { return __builtin_convertvector(x, F4); }
ALBIREO_INLINE I4 to_ints(F4 x) { return __builtin_convertvector(x, I4); }  // towards zero
ALBIREO_INLINE I4 lane(int q) { return I4{0, 1, 2, 3} + 4 * q; }
ALBIREO_INLINE F4 floor_of(F4 x) {
  F4 cut = from_ints(to_ints(x)), down = cut > x ? cut - 1.0f : cut;
  return (I4)((U4)x & 0x7fffffff) < 0x4b000000 ? down : x;  // from 2^23 on all are whole, or no numbers
}
ALBIREO_INLINE F4 power_of(I4 n) { return (F4)((n + 127) << 23); }
ALBIREO_INLINE F4 widen_f16(U4 h) {
  U4 sign = (h & 0x8000) << 16, body = (h & 0x7fff) << 13;
  U4 normal = body + (112u << 23), tiny = (U4)(from_ints((I4)(h & 0x3ff)) * 0x1p-24f);
  U4 large = body + (224u << 23);
  U4 r = (I4)(h & 0x7fff) < 0x400 ? tiny : (I4)(h & 0x7fff) < 0x7c00 ? normal : large;
  return (F4)(r | sign);
}

ALBIREO_INLINE V set1(float x) {
  return quarters<V>([&](int) { return splat(x); });
}
ALBIREO_INLINE V zero() { return set1(0.0f); }
ALBIREO_INLINE V load(const float* p) { return read<V>(p); }
ALBIREO_INLINE V load(const bf16* p) {
  return quarters<V>([&](int q) { return (F4)(widen_half(&p->bits, q) << 16); });
}
ALBIREO_INLINE V load(const f16* p) {
  return quarters<V>([&](int q) { return widen_f16(widen_half(&p->bits, q)); });
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
ALBIREO_INLINE void store(float* p, V v) { memcpy(p, &v, 64); }
// e8m0, without NaN; its code 0 is 2^-127.
ALBIREO_INLINE V load_e8m0(const uint8_t* p) {
  return quarters<V>([&](int q) {
    I4 code = (I4)widen_bytes(p, q);
    return (F4)(code == 0 ? isplat(1 << 22) : code << 23);
  });
}
// e4m3, whose codes of NaN are read as 480: a float16 of another bias.
ALBIREO_INLINE V load_e4m3(const uint8_t* p) {
  return quarters<V>([&](int q) {
    U4 code = widen_bytes(p, q);
    return widen_f16((code & 0x80) << 8 | (code & 0x7f) << 7) * 256.0f;
  });
}
ALBIREO_INLINE V load_n(const float* p, int64_t n) {
  float lanes[16] = {};
  for (int i = 0; i < n; i++) lanes[i] = p[i];
  return load(lanes);
}
ALBIREO_INLINE V add(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] + b.q[q]; });
}
ALBIREO_INLINE V sub(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] - b.q[q]; });
}
ALBIREO_INLINE V mul(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] * b.q[q]; });
}
ALBIREO_INLINE V div(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] / b.q[q]; });
}
ALBIREO_INLINE V max(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] > b.q[q] ? a.q[q] : b.q[q]; });
}
ALBIREO_INLINE V min(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] < b.q[q] ? a.q[q] : b.q[q]; });
}
ALBIREO_INLINE V fma(V a, V b, V c) {
  return quarters<V>([&](int q) { return a.q[q] * b.q[q] + c.q[q]; });
}
ALBIREO_INLINE V round_even(V a) {  // |a| < 2^22
  return quarters<V>([&](int q) { return (a.q[q] + 0x1.8p23f) - 0x1.8p23f; });
}
ALBIREO_INLINE V scale2(V a, V n) {
  return quarters<V>([&](int q) { return a.q[q] * power_of(to_ints(n.q[q])); });
}
ALBIREO_INLINE V above_floor(V a) {
  return quarters<V>([&](int q) { return a.q[q] - floor_of(a.q[q]); });
}
ALBIREO_INLINE V scale2_floor(V a, V t) {  // a * 2^floor(t), for t < 127; as for -126 below that
  return scale2(a, quarters<V>([&](int q) { return t.q[q] > -126.0f ? floor_of(t.q[q]) : splat(-126.0f); }));
}
ALBIREO_INLINE V keep(V a, int64_t low, int64_t high, V b) {
  I4 first = isplat(low < 0    ? 0
                    : low > 16 ? 16
                               : (int32_t)low),
     end = isplat(high < 0    ? 0
                  : high > 16 ? 16
                              : (int32_t)high);
  return quarters<V>([&](int q) { return (lane(q) >= first) & (lane(q) < end) ? a.q[q] : b.q[q]; });
}
ALBIREO_INLINE float sum(V v) {
  F4 four = (v.q[0] + v.q[2]) + (v.q[1] + v.q[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
ALBIREO_INLINE float hmax(V v) {
  float lanes[16], m = v.q[0][0];
  memcpy(lanes, &v, 64);
  for (int i = 1; i < 16; i++) m = lanes[i] > m ? lanes[i] : m;
  return m;
}
ALBIREO_INLINE V pair_even(const bf16* p) {
  return quarters<V>([&](int q) { return (F4)(read<U4>(p + 8 * q) << 16); });
}
ALBIREO_INLINE V pair_odd(const bf16* p) {
  return quarters<V>([&](int q) { return (F4)(read<U4>(p + 8 * q) & 0xffff0000); });
}
// Whole numbers: 16 lanes of pairs of int16, or of int32 sums, in the bits of a V.
ALBIREO_INLINE I4 pair_dots(I4 a, I4 b) { return (I4)_mm_madd_epi16((__m128i)a, (__m128i)b); }
ALBIREO_INLINE void store_two(int16_t* p, V first, V second) { store(p, first), store(p + 16, second); }
ALBIREO_INLINE V whole_pairs(const int8_t* p) {
  return quarters<V>([&](int q) {
    __m128i bytes = _mm_loadl_epi64((const __m128i*)(p + 8 * q));
    return (F4)((H8)_mm_unpacklo_epi8(bytes, bytes) >> 8);
  });
}
ALBIREO_INLINE V every_pair(const int16_t* p) {
  return quarters<V>([&](int) { return (F4)isplat(read<int32_t>(p)); });
}
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
  sums = quarters<V>([&](int q) { return (F4)((I4)sums.q[q] + pair_dots((I4)pairs.q[q], (I4)others.q[q])); });
}
ALBIREO_INLINE V from_whole(V sums) {
  return quarters<V>([&](int q) { return from_ints((I4)sums.q[q]); });
}
ALBIREO_INLINE void prefetch_l2(const char* p) { (void)p; }

// Whole numbers, 16 lanes of 32 bits.
struct VI {
  I4 q[4];
};
struct Codes {  // 16 columns of four unsigned 8-bit codes
  B16 q[4];
};
ALBIREO_INLINE VI izero() { return {}; }
ALBIREO_INLINE VI iload(const int32_t* p) { return read<VI>(p); }
ALBIREO_INLINE void istore(int32_t* p, VI v) { memcpy(p, &v, 64); }
ALBIREO_INLINE VI iset1(int32_t x) {
  return quarters<VI>([&](int) { return isplat(x); });
}
ALBIREO_INLINE VI isub(VI a, VI b) {
  return quarters<VI>([&](int q) { return a.q[q] - b.q[q]; });
}
ALBIREO_INLINE VI imul(VI a, VI b) {
  return quarters<VI>([&](int q) { return a.q[q] * b.q[q]; });
}
ALBIREO_INLINE VI iadd(VI a, VI b) {
  return quarters<VI>([&](int q) { return a.q[q] + b.q[q]; });
}
ALBIREO_INLINE VI low_byte(VI a) {
  return quarters<VI>([&](int q) { return a.q[q] & 0xff; });
}
ALBIREO_INLINE V to_float(VI a) {
  return quarters<V>([&](int q) { return from_ints(a.q[q]); });
}
ALBIREO_INLINE V without_low_byte(VI a) {  // the float32 whose last 8 bits are spare
  return quarters<V>([&](int q) { return (F4)(a.q[q] & ~0xff); });
}
ALBIREO_INLINE VI bytes_to_ints(const uint8_t* p) {
  return quarters<VI>([&](int q) { return (I4)widen_bytes(p, q); });
}
ALBIREO_INLINE void store_codes(int8_t* p, V v) {  // whole numbers from -127 to 127
  __m128i low = _mm_packs_epi32((__m128i)to_ints(v.q[0]), (__m128i)to_ints(v.q[1]));
  __m128i high = _mm_packs_epi32((__m128i)to_ints(v.q[2]), (__m128i)to_ints(v.q[3]));
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(low, high));
}
ALBIREO_INLINE Codes load_codes(const uint8_t* p) { return read<Codes>(p); }
ALBIREO_INLINE Codes low_nibbles(Codes c) {
  return quarters<Codes>([&](int q) { return c.q[q] & 15; });
}
ALBIREO_INLINE Codes high_nibbles(Codes c) {
  return quarters<Codes>([&](int q) { return (B16)((W8)c.q[q] >> 4) & 15; });
}
ALBIREO_INLINE void store_codes(uint8_t* p, Codes c) { memcpy(p, &c, 64); }
// The zero of column codes in dot4, and how often products of codes up to `largest` can be added in 16 bits.
constexpr int32_t kDotZero = 0;
constexpr int narrow_dots(int) { return 0; }
// acc[i][j] += four products of column codes w[j] and row codes at a + i * lda, exactly: of codes 0 and 2 of a column,
// and of 1 and 3, as pairs of 16 bits.
template <int MR, int NV>
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
// Of each e2m1 code twice its number plus 12.
ALBIREO_INLINE Codes twice_e2m1(Codes c) {
  return quarters<Codes>([&](int q) {
    B16 exponent = c.q[q] & 6, mantissa = c.q[q] & 1;
    // twice of 0, 0.5, 1, 1.5, 2, 3, 4, 6
    B16 size = exponent == 0   ? mantissa
               : exponent == 2 ? mantissa + 2
               : exponent == 4 ? 2 * mantissa + 4
                               : 4 * mantissa + 8;
    return (c.q[q] & 8) == 0 ? size + 12 : 12 - size;
  });
}
// (code - zero) * gamma + 128 of each column; gammas [16], zeros [16].
struct Spread {
  B16 gamma[4], zero[4];
  explicit Spread(const uint8_t* p) {
    for (int q = 0; q < 4; q++)
      gamma[q] = (B16)(widen_bytes(p, q) * 0x01010101), zero[q] = (B16)(widen_bytes(p + 16, q) * 0x01010101);
  }
  Codes bytes(Codes c) const {
    return quarters<Codes>([&](int q) { return (c.q[q] - zero[q]) * gamma[q] + 128; });
  }
};
}  // namespace
