// Codes of a KV cache as bfloat16, which holds every one of them exactly. Part of attention.inl.
#pragma once
#include "albireo/kernel.h"

namespace {

#ifdef ALBIREO_HAVE_BF16_DOT

// The bits of bfloat16 of each code but its sign, in two tables of bytes.
struct CodeTable {
  alignas(64) uint8_t low[128];
  alignas(64) uint8_t high[128];
};

// number(code) * 2^-shift; a code's number is a whole number below 2^8.
constexpr uint16_t bf16_of(int whole, int shift) {
  int top = 0;
  while (whole >> (top + 1)) top++;
  return whole ? (uint16_t)((127 + top - shift) << 7 | ((whole << (7 - top)) & 0x7f)) : (uint16_t)0;
}

template <bool kIsFloat>
constexpr CodeTable code_table() {
  CodeTable t{};
  for (int c = 0; c < 128; c++) {
    const int exponent = c >> 3, mantissa = c & 7;
    uint16_t bits = bf16_of(c, 0);
    if (kIsFloat) bits = exponent ? (uint16_t)((exponent + 120) << 7 | mantissa << 4) : bf16_of(mantissa, 9);
    t.low[c] = (uint8_t)bits, t.high[c] = (uint8_t)(bits >> 8);
  }
  return t;
}

template <bool kIsFloat>
void widen_all(const uint8_t* codes, int64_t n, bf16* out, const char* ahead) {
  static constexpr CodeTable kTable = code_table<kIsFloat>();
  const __m512i low0 = _mm512_load_si512(kTable.low), low1 = _mm512_load_si512(kTable.low + 64);
  const __m512i high0 = _mm512_load_si512(kTable.high), high1 = _mm512_load_si512(kTable.high + 64);
  const __m512i sign = _mm512_set1_epi8((char)0x80), halves = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t i = 0; i < n; i += 64) {
    prefetch_l2(ahead + i);
    const __m512i c = _mm512_permutexvar_epi64(halves, _mm512_loadu_si512(codes + i));
    const __m512i at = kIsFloat ? c : _mm512_abs_epi8(c);
    const __m512i low = _mm512_permutex2var_epi8(low0, at, low1);
    const __m512i high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, at, high1), c, sign, 0xf8);
    _mm512_storeu_si512(out + i, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(out + i + 32, _mm512_unpackhi_epi8(low, high));
  }
}

#else

template <bool kIsFloat>
void widen_all(const uint8_t* codes, int64_t n, bf16* out, const char* ahead) {
  for (int64_t i = 0; i < n; i += 16) {
    if (i % 64 == 0) prefetch_l2(ahead + i);
    store(out + i, kIsFloat ? load_e4m3(codes + i) : load((const int8_t*)codes + i));
  }
}

#endif

// n codes, a multiple of 64, in order. Any byte gives a finite number. ahead: as many bytes to fetch meanwhile.
ALBIREO_INLINE void widen_codes(DType type, const uint8_t* codes, int64_t n, bf16* out, const char* ahead) {
  if (type == DType::kI8) widen_all<false>(codes, n, out, ahead);
  else widen_all<true>(codes, n, out, ahead);
}

}  // namespace
