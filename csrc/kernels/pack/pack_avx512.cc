// The common case of packing at memory speed: a transpose of 32-bit words, 16 x 16 in registers.
#include <immintrin.h>

#include <cstring>

#include "kernels/pack/pack.h"

namespace {

// r[i] word j -> r[j] word i.
inline __attribute__((always_inline)) void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

}  // namespace

namespace albireo {

void transpose_words_avx512(const void* const* rows, int64_t words, int64_t steps, uint32_t* out) {
  for (int64_t c = 0; c < kPanel; c += 16)
    for (int64_t s = 0; s < words; s += 16) {
      const int64_t n = words - s < 16 ? words - s : 16;
      const __mmask16 mask = (__mmask16)((1u << n) - 1);
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        r[i] = rows[c + i] ? _mm512_maskz_loadu_epi32(mask, (const uint32_t*)rows[c + i] + s) : _mm512_setzero_si512();
      transpose(r);
      uint32_t* to = out + c * steps + s * kSubPanel;
      if (n == 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * kSubPanel, r[i]);
      } else {
        alignas(64) uint32_t tmp[16][16];
        for (int i = 0; i < 16; i++) _mm512_store_si512(tmp[i], r[i]);
        for (int64_t i = 0; i < n; i++) memcpy(to + i * kSubPanel, tmp[i], 64);
      }
    }
}

}  // namespace albireo
