// e4m3 codes as the bfloat16 numbers they are, 16 at a time: of the levels without tables of 128 bytes. Included by
// units of avx2 and above.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace {

// Each code twice in its 16 bits -> bits of bfloat16: exponents are 120 apart, and below 2^-6 a table has the number.
inline __attribute__((always_inline)) __m256i e4m3_bits(__m256i twice) {
  const __m256i tiny = _mm256_broadcastsi128_si256(_mm_setr_epi8(  //
      0, 0, (char)0x80, (char)0xc0, 0, 0x20, 0x40, 0x60,           // low halves of 0 to 7 times 2^-9
      0, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c));               // and high ones
  const __m256i size = _mm256_and_si256(_mm256_srli_epi16(twice, 4), _mm256_set1_epi16(0x7f0));
  const __m256i mantissa = _mm256_and_si256(twice, _mm256_set1_epi16(0x707));
  const __m256i small = _mm256_shuffle_epi8(tiny, _mm256_or_si256(mantissa, _mm256_set1_epi16(0x800)));
  const __m256i normal = _mm256_add_epi16(size, _mm256_set1_epi16(120 << 7));
  const __m256i bits = _mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi16(_mm256_set1_epi16(0x80), size));
  return _mm256_or_si256(bits, _mm256_and_si256(twice, _mm256_set1_epi16((short)0x8000)));
}

// Of 8 columns by four k, as fp8_place has them: pairs of the first two k, or of the other two.
inline __attribute__((always_inline)) __m256i e4m3_pairs8(const uint8_t* at, bool is_second) {
  const __m256i codes = _mm256_loadu_si256((const __m256i*)at);
  return e4m3_bits(is_second ? _mm256_unpackhi_epi8(codes, codes) : _mm256_unpacklo_epi8(codes, codes));
}

}  // namespace
