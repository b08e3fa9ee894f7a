// The e4m3 codes of a KV cache of fp8 as bfloat16, which holds every one of them exactly. Part of attention.inl.
#pragma once
#include "albireo/kernel.h"

namespace {

#ifdef ALBIREO_HAVE_BYTE_TABLES

// The bits of bfloat16 of each code but its sign, in two tables of bytes.
struct CodeTable {
  alignas(64) uint8_t low[128];
  alignas(64) uint8_t high[128];
};

// mantissa * 2^-9, in the bits of bfloat16
constexpr uint16_t tiny_e4m3(int mantissa) {
  const int top = mantissa > 3 ? 2 : mantissa > 1 ? 1 : 0;
  return mantissa ? (uint16_t)((127 + top - 9) << 7 | ((mantissa << (7 - top)) & 0x7f)) : (uint16_t)0;
}

constexpr CodeTable code_table() {
  CodeTable t{};
  for (int c = 0; c < 128; c++) {
    const int exponent = c >> 3, mantissa = c & 7;
    const uint16_t bits = exponent ? (uint16_t)((exponent + 120) << 7 | mantissa << 4) : tiny_e4m3(mantissa);
    t.low[c] = (uint8_t)bits, t.high[c] = (uint8_t)(bits >> 8);
  }
  return t;
}

// n codes, a multiple of 64, in order. Any byte gives a finite number. ahead: as many bytes to fetch meanwhile.
inline void widen_codes(const uint8_t* codes, int64_t n, bf16* out, const char* ahead) {
  static constexpr CodeTable kTable = code_table();
  const __m512i low0 = _mm512_load_si512(kTable.low), low1 = _mm512_load_si512(kTable.low + 64);
  const __m512i high0 = _mm512_load_si512(kTable.high), high1 = _mm512_load_si512(kTable.high + 64);
  const __m512i sign = _mm512_set1_epi8((char)0x80), halves = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t i = 0; i < n; i += 64) {
    prefetch_l2(ahead + i);
    const __m512i c = _mm512_permutexvar_epi64(halves, _mm512_loadu_si512(codes + i));
    const __m512i low = _mm512_permutex2var_epi8(low0, c, low1);
    const __m512i high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, c, high1), c, sign, 0xf8);
    _mm512_storeu_si512(out + i, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(out + i + 32, _mm512_unpackhi_epi8(low, high));
  }
}

#else

inline void widen_codes(const uint8_t* codes, int64_t n, bf16* out, const char* ahead) {
  for (int64_t i = 0; i < n; i += 16) {
    if (i % 64 == 0) prefetch_l2(ahead + i);
    store(out + i, load_e4m3(codes + i));
  }
}

#endif

}  // namespace
