// Weights of 6 bits and fewer as bytes, once for many rows. Include after fp4.inl.
#include "albireo/encoded.h"
#include "kernels/gemm/nested.inl"

namespace {

// One sub-panel of a type with nests, of which kType has the bits and the groups: heads and codes.
template <DType kType>
inline void unpack_nested(DType type, int64_t k, const uint8_t* b, uint8_t* out) {
  constexpr int kGroup = nested_group(kType), kDots = kGroup / 4, kGroups = kUnit / kGroup;
  constexpr Encoding kWhole{kType, kGroup, is_nested_affine(kType)}, kWide = in_bytes(kWhole);
  const Encoding e{has_number_table(kType) ? type : kType, kGroup, kWhole.affine};
  const uint8_t* table = codes_of_table(e.dtype);
  const int64_t groups = num_groups(kWhole, k);
  const auto group = [&](auto first, const Nest& nest, const uint8_t* steps) {
    const NestedHead head = head_at(e, nest, steps);
    store((float*)out, head.scale), store((float*)(out + kWord), head.other);
    uint8_t* words = out + 2 * kWord;
    for_dots<kType, first, kDots>(b, table,
                                  [&](auto dot, Codes codes) { store_codes(words + (dot - first) * kWord, codes); });
    out += group_bytes(kWide);
  };
  for (int64_t g = 0; g < groups;) {
    const Nest nest = nest_at(e, b);
    const uint8_t* steps = b + nest_head(kWhole);
    b += nest_bytes(kWhole);
    const int64_t end = g + kNest / kGroup < groups ? g + kNest / kGroup : groups;
    for (; g < end; g += kGroups, b += unit_bytes(kType), steps += kGroups * step_bytes(kWhole)) {
      group(std::integral_constant<int, 0>(), nest, steps);
      if constexpr (kGroups == 2)
        if (g + 1 < groups) group(std::integral_constant<int, kDots>(), nest, steps + step_bytes(kWhole));
    }
  }
}

// A panel of nibbles or planes as the bytes in_bytes() names; the same numbers.
inline void unpack_panel(const Encoding& e, int64_t k, const uint8_t* from, uint8_t* to) {
  const int64_t groups = num_groups(e, k), words = group_words(e);
  const Encoding wide = in_bytes(e);
  for (int64_t j = 0; j < kSubPanels; j++) {
    const uint8_t* b = from + j * sub_panel_bytes(e, k);
    uint8_t* out = to + j * sub_panel_bytes(wide, k);
    switch (e.dtype) {
      case DType::kQ2K: unpack_nested<DType::kQ2K>(e.dtype, k, b, out); continue;
      case DType::kQ3K: unpack_nested<DType::kQ3K>(e.dtype, k, b, out); continue;
      case DType::kQ4K: unpack_nested<DType::kQ4K>(e.dtype, k, b, out); continue;
      case DType::kQ5K: unpack_nested<DType::kQ5K>(e.dtype, k, b, out); continue;
      case DType::kQ6K: unpack_nested<DType::kQ6K>(e.dtype, k, b, out); continue;
      case DType::kIQ4XS: unpack_nested<DType::kIQ4XS>(e.dtype, k, b, out); continue;
      case DType::kIQ3XXS:
      case DType::kIQ3S: unpack_nested<DType::kIQ3XXS>(e.dtype, k, b, out); continue;
      case DType::kIQ2XXS:
      case DType::kIQ1S: unpack_nested<DType::kIQ2XXS>(e.dtype, k, b, out); continue;
      case DType::kIQ2S:
      case DType::kIQ1M: unpack_nested<DType::kIQ2S>(e.dtype, k, b, out); continue;
      default: break;
    }
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
          store_codes(out + (2 * s + 1) * kWord, looked_up(kTwiceE2M1, low_nibbles(pair)));
          store_codes(out + (2 * s + 2) * kWord, looked_up(kTwiceE2M1, high_nibbles(pair)));
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
