// The numbers of e4m3 codes. Every one of them is a bf16 number: they are looked up. Include after a vec_<isa>.h.
#pragma once
#include "albireo/encoded.h"

namespace {

// [128] the bf16 bits of each code without its sign: 2^-9 apart below 2^-6, then three bits of mantissa.
struct E4M3Table {
  uint16_t bits[128];
  constexpr E4M3Table() : bits{} {
    for (int code = 0; code < 128; code++) {
      const int exponent = code >> 3, mantissa = code & 7;
      if (exponent) {
        bits[code] = (uint16_t)((exponent + 120) << 7 | mantissa << 4);
        continue;
      }
      int top = 0;  // mantissa * 2^-9 as 1.xx * 2^(top - 9)
      while (mantissa >> (top + 1)) top++;
      if (mantissa) bits[code] = (uint16_t)((top + 118) << 7 | ((mantissa << (7 - top)) & 127));
    }
  }
};
constexpr E4M3Table kE4M3;

#ifdef ALBIREO_HAVE_BYTE_TABLES
struct Fp8Decoder {
  __m512i low[2], high[2];  // bytes of the table
  ALBIREO_INLINE Fp8Decoder() {
    alignas(64) uint8_t bytes[2][128];
    for (int i = 0; i < 128; i++) bytes[0][i] = (uint8_t)kE4M3.bits[i], bytes[1][i] = (uint8_t)(kE4M3.bits[i] >> 8);
    for (int i = 0; i < 2; i++)
      low[i] = _mm512_load_si512(bytes[0] + 64 * i), high[i] = _mm512_load_si512(bytes[1] + 64 * i);
  }
  // In a loop: the table stays in registers, where g++ would load it again each time.
  ALBIREO_INLINE void stay() { asm("" : "+v"(low[0]), "+v"(low[1]), "+v"(high[0]), "+v"(high[1])); }
  // 16 columns of four k: of the first two k, and of the other two
  ALBIREO_INLINE void pairs(const uint8_t* at, V& first, V& second) const {
    const __m512i codes = _mm512_loadu_si512(at);
    const __m512i sign = _mm512_and_si512(codes, _mm512_set1_epi8((char)0x80));
    const __m512i lower = _mm512_permutex2var_epi8(low[0], codes, low[1]);
    const __m512i upper = _mm512_or_si512(_mm512_permutex2var_epi8(high[0], codes, high[1]), sign);
    first = _mm512_castsi512_ps(_mm512_unpacklo_epi8(lower, upper));
    second = _mm512_castsi512_ps(_mm512_unpackhi_epi8(lower, upper));
  }
};
#else
struct Fp8Decoder {
  ALBIREO_INLINE void stay() {}
  ALBIREO_INLINE void pairs(const uint8_t* at, V& first, V& second) const {
    first = e4m3_pairs(at, false), second = e4m3_pairs(at, true);
  }
};
#endif

// So many words of 16 columns by two k, whose codes are at b, as bf16. fetched: bytes ahead.
inline void unpack_fp8_words(const uint8_t* b, int64_t count, int64_t fetched, float* to) {
  const Fp8Decoder decode;
  for (int64_t s = 0; s < count; s += 2, b += kWord, to += 2 * kSubPanel) {
    V pair, other;
    prefetch_l1((const char*)b + fetched);
    decode.pairs(b, pair, other);
    store(to, pair);
    if (s + 1 < count) store(to + kSubPanel, other);
  }
}
// A panel as one of bf16, the same numbers; scales stay where they are.
inline void unpack_fp8(const Encoding& e, int64_t k, const uint8_t* from, int64_t fetched, uint16_t* to) {
  const int64_t pairs = ceil_div(k, 2);
  for (int64_t j = 0; j < kSubPanels; j++)
    unpack_fp8_words(from + j * sub_panel_bytes(e, k), pairs, fetched, (float*)(to + j * pairs * kSubPanel * 2));
}

// A group's sums of 16 columns, added to what those before have come to; of the first, all there is.
ALBIREO_INLINE void add_fp8_group(float* c, V sums, V scale, bool is_first) {
  store(c, is_first ? mul(sums, scale) : fma(sums, scale, load(c)));
}

}  // namespace
