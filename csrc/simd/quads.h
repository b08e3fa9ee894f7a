// 16 lanes as four vectors of four, in the compiler's own vector types: what levels whose registers hold four numbers
// share (vec_scalar.h, vec_neon.h). Lanes in arrays, left to the vectorizer, took five times as long to compile, a
// third of the whole module. What is declared here and not defined is a level's own.
#pragma once
#include <cstring>

#include "albireo/encoded.h"

#define ALBIREO_INLINE inline __attribute__((always_inline))

namespace {
using albireo::bf16;
using albireo::f16;

typedef float F4 __attribute__((vector_size(16)));
typedef int64_t L2 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef uint32_t U4 __attribute__((vector_size(16)));
typedef int16_t H8 __attribute__((vector_size(16)));
typedef uint16_t W8 __attribute__((vector_size(16)));
typedef uint8_t B16 __attribute__((vector_size(16)));

struct V {
  F4 q[4];
};
constexpr int kFewRows = 4;      // of weights in few bits, up to which they are multiplied as they lie
constexpr int kTileVectors = 1;  // a register tile is kTileRows rows by 16 columns

ALBIREO_INLINE F4 fma_of(F4 a, F4 b, F4 c);
ALBIREO_INLINE F4 floor_of(F4 x);
ALBIREO_INLINE F4 round_of(F4 x);                      // nearest even
ALBIREO_INLINE F4 widen_f16(U4 bits);                  // of float16, in the low half of each lane
ALBIREO_INLINE B16 pack_ints(I4 a, I4 b, I4 c, I4 d);  // of 8 bits each
ALBIREO_INLINE W8 tiny_e4m3(B16 twice);  // bits of bfloat16 of 0 to 7, times 2^-9; of codes as e4m3_bits has them

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
// A quarter at a time: 64 bytes at once g++ 12 moves through the stack.
template <class T, class Q, class P>
ALBIREO_INLINE T read_quarters(const P* p) {
  return quarters<T>([&](int q) { return read<Q>((const char*)p + 16 * q); });
}
template <class T, class P>
ALBIREO_INLINE void write_quarters(P* p, const T& v) {
  for (int q = 0; q < 4; q++) memcpy((char*)p + 16 * q, &v.q[q], 16);
}

// Of 16 bits, or 8, in lanes of 32: those of quarter q.
ALBIREO_INLINE U4 widen_low(W8 x) { return (U4)__builtin_shufflevector(x, W8{}, 0, 8, 1, 9, 2, 10, 3, 11); }
ALBIREO_INLINE U4 widen_high(W8 x) { return (U4)__builtin_shufflevector(x, W8{}, 4, 12, 5, 13, 6, 14, 7, 15); }
ALBIREO_INLINE U4 widen_half(const uint16_t* p, int q) {
  return q % 2 ? widen_high(read<W8>(p + 8 * (q / 2))) : widen_low(read<W8>(p + 8 * (q / 2)));
}
ALBIREO_INLINE U4 widen_bytes(const uint8_t* p, int q) {
  const B16 bytes = (B16)I4{read<int32_t>(p + 4 * q)};
  return widen_low((W8)__builtin_shufflevector(bytes, B16{}, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
}
ALBIREO_INLINE F4 splat(float x) { return F4{x, x, x, x}; }
ALBIREO_INLINE I4 isplat(int32_t x) { return I4{x, x, x, x}; }
ALBIREO_INLINE F4 from_ints(I4 x) { return __builtin_convertvector(x, F4); }
ALBIREO_INLINE I4 to_ints(F4 x) { return __builtin_convertvector(x, I4); }  // towards zero
ALBIREO_INLINE I4 lane(int q) { return I4{0, 1, 2, 3} + 4 * q; }
ALBIREO_INLINE F4 power_of(I4 n) { return (F4)((n + 127) << 23); }
ALBIREO_INLINE F4 larger(F4 a, F4 b) { return a > b ? a : b; }

ALBIREO_INLINE V set1(float x) {
  return quarters<V>([&](int) { return splat(x); });
}
ALBIREO_INLINE V zero() { return set1(0.0f); }
ALBIREO_INLINE V load(const float* p) { return read_quarters<V, F4>(p); }
ALBIREO_INLINE V load(const bf16* p) {
  return quarters<V>([&](int q) { return (F4)(widen_half(&p->bits, q) << 16); });
}
ALBIREO_INLINE V load(const f16* p) {
  return quarters<V>([&](int q) { return widen_f16(widen_half(&p->bits, q)); });
}
ALBIREO_INLINE void store(float* p, V v) { write_quarters(p, v); }
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
  return quarters<V>([&](int q) { return larger(a.q[q], b.q[q]); });
}
ALBIREO_INLINE V min(V a, V b) {
  return quarters<V>([&](int q) { return a.q[q] < b.q[q] ? a.q[q] : b.q[q]; });
}
ALBIREO_INLINE V fma(V a, V b, V c) {
  return quarters<V>([&](int q) { return fma_of(a.q[q], b.q[q], c.q[q]); });
}
ALBIREO_INLINE V round_even(V a) {
  return quarters<V>([&](int q) { return round_of(a.q[q]); });
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
  return quarters<V>([&](int q) { return ((lane(q) >= first) & (lane(q) < end)) ? a.q[q] : b.q[q]; });
}
ALBIREO_INLINE float sum(V v) {
  F4 four = (v.q[0] + v.q[2]) + (v.q[1] + v.q[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
ALBIREO_INLINE float hmax(V v) {
  const F4 four = larger(larger(v.q[0], v.q[2]), larger(v.q[1], v.q[3]));
  const float a = four[0] > four[2] ? four[0] : four[2], b = four[1] > four[3] ? four[1] : four[3];
  return a > b ? a : b;
}
// Pairs of bf16, in the bits of a V: the numbers in the low halves, and in the high ones.
ALBIREO_INLINE V even_of(V pairs) {
  return quarters<V>([&](int q) { return (F4)((U4)pairs.q[q] << 16); });
}
ALBIREO_INLINE V odd_of(V pairs) {
  return quarters<V>([&](int q) { return (F4)((U4)pairs.q[q] & 0xffff0000); });
}
ALBIREO_INLINE V pair_even(const bf16* p) { return even_of(load((const float*)p)); }
ALBIREO_INLINE V pair_odd(const bf16* p) { return odd_of(load((const float*)p)); }
// e4m3 codes, each twice in its 16 bits, as bfloat16: exponents are 120 apart.
ALBIREO_INLINE F4 e4m3_bits(B16 twice) {
  const W8 size = (W8)twice >> 4 & 0x7f0;
  const W8 bits = size < 0x80 ? tiny_e4m3(twice) : size + (120 << 7);
  return (F4)(bits | ((W8)twice & 0x8000));
}
// 16 columns of four k of e4m3: pairs of the first two k, or of the other two.
ALBIREO_INLINE V e4m3_pairs(const uint8_t* at, bool is_second) {
  return quarters<V>([&](int q) {
    const B16 c = read<B16>(at + 16 * q);
    return e4m3_bits(is_second
                         ? __builtin_shufflevector(c, c, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15)
                         : __builtin_shufflevector(c, c, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7));
  });
}
// Whole numbers: 16 lanes of pairs of int16, or of int32 sums, in the bits of a V.
ALBIREO_INLINE V whole_pairs(const int8_t* p) {
  return quarters<V>([&](int q) {
    const B16 b = (B16)L2{read<int64_t>(p + 8 * q)};
    return (F4)((H8)__builtin_shufflevector(b, b, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7) >> 8);
  });
}
ALBIREO_INLINE V every_pair(const int16_t* p) {  // the pair at p, in each lane
  return quarters<V>([&](int) { return (F4)isplat(read<int32_t>(p)); });
}
ALBIREO_INLINE V from_whole(V sums) {
  return quarters<V>([&](int q) { return from_ints((I4)sums.q[q]); });
}

// Whole numbers, 16 lanes of 32 bits.
struct VI {
  I4 q[4];
};
struct Codes {  // 16 columns of four unsigned 8-bit codes
  B16 q[4];
};
ALBIREO_INLINE VI izero() { return {}; }
ALBIREO_INLINE VI iload(const int32_t* p) { return read_quarters<VI, I4>(p); }
ALBIREO_INLINE void istore(int32_t* p, VI v) { write_quarters(p, v); }
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
  const B16 codes = pack_ints(to_ints(v.q[0]), to_ints(v.q[1]), to_ints(v.q[2]), to_ints(v.q[3]));
  memcpy(p, &codes, 16);
}
ALBIREO_INLINE Codes load_codes(const uint8_t* p) { return read_quarters<Codes, B16>(p); }
ALBIREO_INLINE Codes low_nibbles(Codes c) {
  return quarters<Codes>([&](int q) { return c.q[q] & 15; });
}
// Of each byte the bits of kMask, after they are moved down by kShift, or up.
template <int kShift, int kMask>
ALBIREO_INLINE Codes bits_of_codes(Codes c) {
  return quarters<Codes>([&](int q) {
    if constexpr (kShift >= 0) return (B16)((W8)c.q[q] >> kShift) & (uint8_t)kMask;
    else return (B16)((W8)c.q[q] << -kShift) & (uint8_t)kMask;
  });
}
ALBIREO_INLINE Codes either(Codes a, Codes b) {
  return quarters<Codes>([&](int q) { return a.q[q] | b.q[q]; });
}
ALBIREO_INLINE Codes less(Codes a, Codes b) {
  return quarters<Codes>([&](int q) { return a.q[q] - b.q[q]; });
}
ALBIREO_INLINE Codes four_times(VI a) {  // numbers below 256 in each byte
  return quarters<Codes>([&](int q) { return (B16)(a.q[q] * 0x01010101); });
}
ALBIREO_INLINE void store_codes(uint8_t* p, Codes c) { write_quarters(p, c); }
// (code - zero) * gamma + 128 of each column; gammas [16], zeros [16].
struct Spread {
  B16 gamma[4], zero[4];
  explicit ALBIREO_INLINE Spread(const uint8_t* p) {
    for (int q = 0; q < 4; q++)
      gamma[q] = (B16)(widen_bytes(p, q) * 0x01010101), zero[q] = (B16)(widen_bytes(p + 16, q) * 0x01010101);
  }
  ALBIREO_INLINE Codes bytes(Codes c) const {
    return quarters<Codes>([&](int q) { return (c.q[q] - zero[q]) * gamma[q] + 128; });
  }
};
}  // namespace
