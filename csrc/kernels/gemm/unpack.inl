// Weights of 6 bits and fewer as bytes, once for many rows. Include after fp4.inl.
#pragma once
#include "albireo/encoded.h"
#include "kernels/gemm/nested.inl"

namespace {

// use(kType) of that which has the bits and the groups of a type with nests.
template <class Use>
inline void for_nest_type(DType type, Use use) {
  switch (type) {
    case DType::kQ2K: return use(std::integral_constant<DType, DType::kQ2K>());
    case DType::kQ3K: return use(std::integral_constant<DType, DType::kQ3K>());
    case DType::kQ4K: return use(std::integral_constant<DType, DType::kQ4K>());
    case DType::kQ5K: return use(std::integral_constant<DType, DType::kQ5K>());
    case DType::kQ6K: return use(std::integral_constant<DType, DType::kQ6K>());
    case DType::kIQ4XS: return use(std::integral_constant<DType, DType::kIQ4XS>());
    case DType::kIQ3XXS:
    case DType::kIQ3S: return use(std::integral_constant<DType, DType::kIQ3XXS>());
    case DType::kIQ2XXS:
    case DType::kIQ1S: return use(std::integral_constant<DType, DType::kIQ2XXS>());
    case DType::kIQ2S:
    case DType::kIQ1M: return use(std::integral_constant<DType, DType::kIQ2S>());
    default: return;
  }
}

// What a sub-panel of a type with nests becomes: head by head, and a group's codes.
struct NestBytes {
  uint8_t* out;
  ALBIREO_INLINE void begin(const NestedHead& head) {
    store((float*)out, head.scale), store((float*)(out + kWord), head.other);
    out += 2 * kWord;
  }
  ALBIREO_INLINE void add(Codes codes) {
    store_codes(out, codes);
    out += kWord;
  }
};

// One sub-panel of a type with nests, of which kType has the bits and the groups: heads and codes.
template <DType kType, class Bytes>
inline void unpack_nested(DType type, int64_t k, const uint8_t* b, Bytes bytes) {
  constexpr int kGroup = nested_group(kType), kDots = kGroup / 4, kGroups = kUnit / kGroup;
  constexpr Encoding kWhole{kType, kGroup, is_nested_affine(kType)};
  const Encoding e{has_number_table(kType) ? type : kType, kGroup, kWhole.affine};
  const uint8_t* table = codes_of_table(e.dtype);
  const int64_t groups = num_groups(kWhole, k);
  const auto group = [&](auto first, const Nest& nest, const uint8_t* steps) {
    bytes.begin(head_at(e, nest, steps));
    for_dots<kType, first, kDots>(b, table, [&](auto, Codes codes) { bytes.add(codes); });
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
    if (is_nested(e.dtype)) {
      for_nest_type(e.dtype, [&](auto type) { unpack_nested<type()>(e.dtype, k, b, NestBytes{out}); });
      continue;
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
