// A head of a token as codes and a scale: how a KV cache of int8 or fp8 rounds. Part of qkv_rope_kv.inl.
#pragma once
#include "albireo/kernel.h"
#include "simd/row_scale.inl"

#include <cstring>

namespace {

// The nearest of e4m3, ties to even, of a number whose absolute value rounds to 448 at most.
ALBIREO_INLINE uint8_t e4m3_code(float x) {
  uint32_t bits, tiny;
  memcpy(&bits, &x, 4);
  const uint32_t a = bits & 0x7fffffff;
  float size;
  memcpy(&size, &a, 4);
  size += 0x1p14f;  // below 2^-6 codes are 2^-9 apart: so are the numbers from 2^14 on
  memcpy(&tiny, &size, 4);
  const uint32_t normal = ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120 << 3);
  return (uint8_t)((bits >> 24 & 0x80) | (a < 0x3c800000 ? tiny - 0x46800000 : normal));
}

ALBIREO_INLINE void encode(DType type, V numbers, uint8_t* codes) {
  alignas(64) float tmp[16];
  store(tmp, type == DType::kInt8 ? round_even(numbers) : numbers);
  for (int i = 0; i < 16; i++) codes[i] = type == DType::kInt8 ? (uint8_t)(int8_t)(int32_t)tmp[i] : e4m3_code(tmp[i]);
}

// All codes are 0 where the scale is 0 or no number.
inline void write_codes(const KVShape& s, char* sub, int64_t offset, const float* head, bool is_value) {
  const int64_t S = sub_block(s), Dp = s.padded_head_dim;
  const float scale = row_scale(head, Dp, s.dtype == DType::kInt8 ? 127.0f : 448.0f);
  memcpy(sub + 2 * S * Dp + ((is_value ? S : 0) + offset) * sizeof(float), &scale, sizeof(float));
  const V by = set1(scale);
  uint8_t codes[16] = {};
  for (int64_t e = 0; e < Dp; e += 16) {
    if (scale > 0.0f) encode(s.dtype, div(load(head + e), by), codes);
    if (is_value) {
      char* at = sub + S * Dp + (offset / 2 * Dp + e) * 2 + offset % 2;
      for (int64_t i = 0; i < 16; i++) at[2 * i] = (char)codes[i];
    } else {
      char* at = sub + e * S + offset * 2;
      for (int64_t i = 0; i < 16; i += 2) memcpy(at + i * S, codes + i, 2);
    }
  }
}

}  // namespace
