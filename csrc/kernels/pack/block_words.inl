// Words of 32 bits of four rows side by side, a lane a row, in the vectors that every processor has.
#pragma once
#include <array>
#include <cstring>

#include "simd/vec_scalar.h"

namespace {
using FourRows = std::array<const uint8_t*, 4>;

ALBIREO_INLINE U4 word_of(const FourRows& rows, int64_t at) {
  return U4{read<uint32_t>(rows[0] + at), read<uint32_t>(rows[1] + at), read<uint32_t>(rows[2] + at),
            read<uint32_t>(rows[3] + at)};
}
ALBIREO_INLINE U4 half_of(const FourRows& rows, int64_t at) {
  return U4{read<uint16_t>(rows[0] + at), read<uint16_t>(rows[1] + at), read<uint16_t>(rows[2] + at),
            read<uint16_t>(rows[3] + at)};
}
ALBIREO_INLINE U4 byte_of(const FourRows& rows, int64_t at) {
  return U4{rows[0][at], rows[1][at], rows[2][at], rows[3][at]};
}
// kCount words of each row from byte `at` on.
template <int kCount>
ALBIREO_INLINE void load_words(const FourRows& rows, int64_t at, U4* words) {
  static_assert(kCount % 4 == 0);
  for (int i = 0; i < kCount; i += 4) {
    const U4 a = read<U4>(rows[0] + at + 4 * i), b = read<U4>(rows[1] + at + 4 * i);
    const U4 c = read<U4>(rows[2] + at + 4 * i), d = read<U4>(rows[3] + at + 4 * i);
    const L2 ab = (L2)__builtin_shufflevector(a, b, 0, 4, 1, 5), cd = (L2)__builtin_shufflevector(c, d, 0, 4, 1, 5);
    const L2 ef = (L2)__builtin_shufflevector(a, b, 2, 6, 3, 7), gh = (L2)__builtin_shufflevector(c, d, 2, 6, 3, 7);
    words[i] = (U4)__builtin_shufflevector(ab, cd, 0, 2), words[i + 1] = (U4)__builtin_shufflevector(ab, cd, 1, 3);
    words[i + 2] = (U4)__builtin_shufflevector(ef, gh, 0, 2), words[i + 3] = (U4)__builtin_shufflevector(ef, gh, 1, 3);
  }
}
// Byte j of lane i becomes byte i of lane j.
ALBIREO_INLINE U4 transpose_bytes(U4 x) {
  B16 bytes = (B16)x;
  for (int i = 0; i < 2; i++)
    bytes = __builtin_shufflevector(bytes, bytes, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  return (U4)bytes;
}
// The low halves of all lanes.
ALBIREO_INLINE uint64_t low_halves(U4 x) {
  const W8 halves = __builtin_shufflevector((W8)x, (W8)x, 0, 2, 4, 6, 0, 2, 4, 6);
  return (uint64_t)((L2)halves)[0];
}
// Where mask has ones.
template <class T>
ALBIREO_INLINE void put(uint8_t* at, T x, T mask) {
  const T there = read<T>(at), both = (there & ~mask) | (x & mask);
  memcpy(at, &both, sizeof(T));
}
}  // namespace
