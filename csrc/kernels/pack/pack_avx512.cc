// The common case of packing at memory speed: a transpose of 32-bit words, 16 x 16 in registers.
#include <cstring>

#include "kernels/pack/pack.h"
#include "simd/transpose_avx512.h"

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
      transpose_words(r);
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
