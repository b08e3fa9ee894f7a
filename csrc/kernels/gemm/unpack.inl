// Weights of 4 bits as bytes, once for many rows. Include after fp4.inl.
#include "albireo/encoded.h"

namespace {

// A panel of nibbles as the bytes in_bytes() names; the same numbers.
inline void unpack_panel(const Encoding& e, int64_t k, const uint8_t* from, uint8_t* to) {
  const int64_t groups = num_groups(e, k), words = group_words(e);
  const Encoding wide = in_bytes(e);
  for (int64_t j = 0; j < kSubPanels; j++) {
    const uint8_t* b = from + j * sub_panel_bytes(e, k);
    uint8_t* out = to + j * sub_panel_bytes(wide, k);
    if (e.dtype == DType::kInt4Group) {
      for (int64_t g = 0; g < groups; g++, b += group_bytes(e), out += group_bytes(wide)) {
        const int64_t head = head_bytes(e);
        for (int64_t i = 0; i < head; i += kWord) store_codes(out + i, load_codes(b + i));
        for (int64_t s = 0; s < words; s++) {
          const Codes pair = load_codes(b + head + s * kWord);
          store_codes(out + head + 2 * s * kWord, low_nibbles(pair));
          store_codes(out + head + (2 * s + 1) * kWord, high_nibbles(pair));
        }
      }
      continue;
    }
    const uint8_t* codes = b + gamma_bytes(e, k);
    if (e.dtype == DType::kFp4) {
      for (int64_t g = 0; g < groups; g++, out += group_bytes(wide)) {
        store((float*)out, scale_of_group(e, b, g));  // its last 8 bits are zeros
        istore((int32_t*)out, iadd(iload((const int32_t*)out), iset1(kE2M1Zero)));
        for (int64_t s = 0; s < words; s++) {
          const Codes pair = load_codes(codes + (g * words + s) * kWord);
          store_codes(out + (2 * s + 1) * kWord, twice_e2m1(low_nibbles(pair)));
          store_codes(out + (2 * s + 2) * kWord, twice_e2m1(high_nibbles(pair)));
        }
      }
      continue;
    }
    const int64_t fours = ceil_div(k, 4);
    for (int64_t g = 0; g < groups; g++) {
      const Spread spread(b + g * 32);
      for (int64_t s = 0; s < words; s++) {
        const Codes pair = load_codes(codes + (g * words + s) * kWord);
        const int64_t four = (g * words + s) * 2;
        if (four < fours) store_codes(out + four * kWord, spread.bytes(low_nibbles(pair)));
        if (four + 1 < fours) store_codes(out + (four + 1) * kWord, spread.bytes(high_nibbles(pair)));
      }
    }
  }
}

}  // namespace
