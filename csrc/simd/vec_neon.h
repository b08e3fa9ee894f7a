// The vector vocabulary, 16 lanes = four 128-bit registers of 32. Included by neon units only; see vec_avx512.h. What
// the compiler's own vector types do not say is said in intrinsics.
#pragma once
#include <arm_neon.h>

#include <utility>

#include "simd/quads.h"

namespace {
constexpr int kRegisters = 8;  // of 16 numbers each
constexpr int kTileRows = 6;   // 24 registers of sums, four of weights

ALBIREO_INLINE F4 fma_of(F4 a, F4 b, F4 c) { return vfmaq_f32(c, a, b); }
ALBIREO_INLINE F4 floor_of(F4 x) { return vrndmq_f32(x); }
ALBIREO_INLINE F4 round_of(F4 x) { return vrndnq_f32(x); }
ALBIREO_INLINE F4 widen_f16(U4 bits) { return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(bits))); }
ALBIREO_INLINE B16 pack_ints(I4 a, I4 b, I4 c, I4 d) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a), vmovn_s32(b)), high = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
  return (B16)vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

// Eight of quarters q and q + 1, narrowed.
#ifdef ALBIREO_HAVE_BF16_DOT
ALBIREO_INLINE W8 bf16_bits(V v, int q) { return (W8)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(v.q[q]), v.q[q + 1]); }
#else
ALBIREO_INLINE uint16x4_t bf16_bits(F4 x) {  // nearest even; NaN stays NaN
  const U4 u = (U4)x, rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  return vmovn_u32(x == x ? rounded : u >> 16 | 0x40);
}
ALBIREO_INLINE W8 bf16_bits(V v, int q) { return vcombine_u16(bf16_bits(v.q[q]), bf16_bits(v.q[q + 1])); }
#endif
ALBIREO_INLINE W8 f16_bits(V v, int q) { return (W8)vcombine_f16(vcvt_f16_f32(v.q[q]), vcvt_f16_f32(v.q[q + 1])); }
ALBIREO_INLINE W8 nearest_ints(V v, int q) {
  return (W8)vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(v.q[q])), vqmovn_s32(vcvtnq_s32_f32(v.q[q + 1])));
}
template <class T, class F>
ALBIREO_INLINE void store_halves(T* p, F bits) {
  const W8 low = bits(0), high = bits(2);
  memcpy((void*)p, &low, 16), memcpy((void*)(p + 8), &high, 16);
}
ALBIREO_INLINE void store(bf16* p, V v) {
  store_halves(p, [&](int q) { return bf16_bits(v, q); });
}
ALBIREO_INLINE void store(f16* p, V v) {
  store_halves(p, [&](int q) { return f16_bits(v, q); });
}
ALBIREO_INLINE void store(int16_t* p, V v) {
  store_halves(p, [&](int q) { return nearest_ints(v, q); });
}
template <class T>
ALBIREO_INLINE void store_two(T* p, V first, V second) {
  store(p, first), store(p + 16, second);
}
template <class T>
ALBIREO_INLINE void store_n(T* p, V v, int64_t n) {
  T tmp[16];
  store(tmp, v);
  for (int64_t i = 0; i < n; i++) p[i] = tmp[i];
}
ALBIREO_INLINE void prefetch_l1(const char* p) { __builtin_prefetch(p, 0, 3); }
ALBIREO_INLINE void prefetch_l2(const char* p) { __builtin_prefetch(p, 0, 2); }

// sums += both products of each pair.
ALBIREO_INLINE void add_dots(V& sums, V pairs, V others) {
  sums = quarters<V>([&](int q) {
    const int16x8_t a = (H8)pairs.q[q], b = (H8)others.q[q];
    const I4 low = vmull_s16(vget_low_s16(a), vget_low_s16(b)), high = vmull_high_s16(a, b);
    return (F4)vaddq_s32((I4)sums.q[q], vpaddq_s32(low, high));
  });
}
ALBIREO_INLINE Codes high_nibbles(Codes c) {
  return quarters<Codes>([&](int q) { return vshrq_n_u8(c.q[q], 4); });
}
ALBIREO_INLINE W8 tiny_e4m3(B16 twice) {
  const B16 halves = {0, 0, 0x80, 0xc0, 0, 0x20, 0x40, 0x60, 0, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c};
  return (W8)vqtbl1q_u8(halves, (B16)(((W8)twice & 0x707) | 0x800));
}
// Of each code below 16 that of a table of so many.
ALBIREO_INLINE Codes looked_up(const uint8_t* table, Codes c) {
  const B16 of_all = read<B16>(table);
  return quarters<Codes>([&](int q) { return vqtbl1q_u8(of_all, c.q[q]); });
}
constexpr int narrow_dots(int) { return 0; }  // see vec_avx2.h: here products of bytes are added in 32 bits as soon

#if defined(__ARM_FEATURE_MATMUL_INT8) && (defined(ALBIREO_HAVE_BYTE_DOT) || defined(ALBIREO_HAVE_BF16_DOT))
#define ALBIREO_HAVE_ROW_PAIRS  // instructions that multiply two columns by two rows, over 8 bytes of k
#ifdef ALBIREO_HAVE_BYTE_DOT
ALBIREO_INLINE void add_product(I4& sums, I4 columns, I4 rows) {  // of intrinsics g++ 12 copies sums, here and below
  asm("usmmla %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(columns), "w"(rows));
}
#else
// As two dots of a pair each, one after the other: the bits of bf16_dots.
ALBIREO_INLINE void add_product(I4& sums, I4 columns, I4 rows) {
  asm("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sums) : "w"(columns), "w"(rows));
}
#endif
// Words q of two neighbouring steps.
ALBIREO_INLINE std::pair<I4, I4> two_words(const void* first, const void* second, int q) {
  return {read<I4>((const char*)first + 16 * q), read<I4>((const char*)second + 16 * q)};
}
ALBIREO_INLINE I4 first_of(I4 a, I4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
ALBIREO_INLINE I4 last_of(I4 a, I4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }

// Sums of MR rows by 16 columns where a register has two columns of two rows. They take as many registers as rows do,
// and each instruction adds twice as many products. Words of neighbouring steps are put side by side on the way.
template <int MR>
struct RowPairs {
  static constexpr int kPairs = (MR + 1) / 2;  // the second of the last may be no row
  I4 sums[kPairs][8];

  template <class Rows>  // of VI or V, [MR][1]
  explicit ALBIREO_INLINE RowPairs(const Rows& rows) {
#pragma GCC unroll 32
    for (int p = 0; p < kPairs; p++)
#pragma GCC unroll 32
      for (int q = 0; q < 4; q++) {
        const I4 a = (I4)rows[2 * p][0].q[q], b = 2 * p + 1 < MR ? (I4)rows[(2 * p + 1) % MR][0].q[q] : I4{};
        sums[p][2 * q] = first_of(a, b), sums[p][2 * q + 1] = last_of(a, b);
      }
  }
  // 8 bytes of k: words(q) are those of columns 4q .. 4q + 3, two a column; those of row i lie at x + i * ld.
  template <class F>
  ALBIREO_INLINE void add(F words, const char* x, int64_t ld) {
    I4 rows[kPairs];
#pragma GCC unroll 32
    for (int p = 0; p < kPairs; p++) {
      const int64x2_t first = vcombine_s64(vld1_s64((const int64_t*)(x + 2 * p * ld)), vdup_n_s64(0));
      const int64_t* second = (const int64_t*)(x + (2 * p + 1) * ld);
      rows[p] = (I4)(2 * p + 1 < MR ? vld1q_lane_s64(second, first, 1) : first);
    }
#pragma GCC unroll 32
    for (int q = 0; q < 4; q++) {
      asm("" ::: "memory");  // words are loaded one after another: all at once would take registers of sums
      const std::pair<I4, I4> two = words(q);
      const I4 low = first_of(two.first, two.second), high = last_of(two.first, two.second);
#pragma GCC unroll 32
      for (int p = 0; p < kPairs; p++) {
        add_product(sums[p][2 * q], low, rows[p]);
        add_product(sums[p][2 * q + 1], high, rows[p]);
      }
    }
  }
  template <class Rows>
  ALBIREO_INLINE void give(Rows& rows) const {
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
      for (int q = 0; q < 4; q++) {
        const I4 a = sums[i / 2][2 * q], b = sums[i / 2][2 * q + 1];
        const I4 row = i % 2 ? __builtin_shufflevector(a, b, 1, 3, 5, 7) : __builtin_shufflevector(a, b, 0, 2, 4, 6);
        memcpy(&rows[i][0].q[q], &row, 16);
      }
  }
};
#endif

// acc[i][j] += four products of column codes w[j], less kDotZero unless all are small (below 128), and row codes at a +
// i * lda, exactly.
#if defined(ALBIREO_HAVE_BYTE_DOT) && defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int32_t kDotZero = 0;
ALBIREO_INLINE B16 dot_operand(B16 codes) { return codes; }
ALBIREO_INLINE I4 add_dot(I4 sum, B16 codes, I4 four) { return vusdotq_s32(sum, codes, (int8x16_t)four); }
#else
constexpr int32_t kDotZero = 128;
ALBIREO_INLINE B16 dot_operand(B16 codes) { return codes ^ 0x80; }
#ifdef ALBIREO_HAVE_BYTE_DOT
ALBIREO_INLINE I4 add_dot(I4 sum, B16 codes, I4 four) { return vdotq_s32(sum, (int8x16_t)codes, (int8x16_t)four); }
#else
ALBIREO_INLINE I4 add_dot(I4 sum, B16 codes, I4 four) {  // a pair of products is 2 * 128 * 127 at most
  const int8x16_t a = (int8x16_t)codes, b = (int8x16_t)four;
  return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)));
}
#endif
#endif
template <int MR, int NV, bool kSmall>
ALBIREO_INLINE void dot4(VI (&acc)[MR][NV], const Codes (&w)[NV], const int8_t* a, int64_t lda) {
  Codes codes[NV];
#pragma GCC unroll 32
  for (int j = 0; j < NV; j++)
    codes[j] = quarters<Codes>([&](int q) { return kSmall ? w[j].q[q] : dot_operand(w[j].q[q]); });
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    const I4 four = isplat(read<int32_t>(a + i * lda));
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++)
      acc[i][j] = quarters<VI>([&](int q) { return add_dot(acc[i][j].q[q], codes[j].q[q], four); });
  }
}

#ifdef ALBIREO_HAVE_BF16_DOT
// acc[i][j] += both products of each pair of bf16 of w[j] and the pair at a + i * lda.
template <int MR, int NV>
ALBIREO_INLINE void bf16_dots(V (&acc)[MR][NV], const V (&w)[NV], const bf16* a, int64_t lda) {
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    const bfloat16x8_t pair = (bfloat16x8_t)isplat(read<int32_t>(a + i * lda));
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++)
      acc[i][j] = quarters<V>([&](int q) { return vbfdotq_f32(acc[i][j].q[q], (bfloat16x8_t)w[j].q[q], pair); });
  }
}
#endif
}  // namespace
