// The K types: codes of 2 to 6 bits in planes, scales and offsets of groups as whole multiples of those of a nest.
// Include after a vec_<isa>.h.
//
// A unit is 32 k, so eight words of codes, of which dot q is codes 4 q .. 4 q + 3. The low bits lie first: as nibbles,
// two dots a word, or, of codes of 2 and 3 bits, as pairs of bits, four dots a word. Then what is left of a code, two
// bits as such pairs or one, of eight dots a word. Of types with a table these are places in it.
#pragma once
#include "albireo/encoded.h"

namespace {
using namespace albireo;

// Codes 4 kDot .. of a unit. table: of types that have one, which share a kType where bits and groups are the same.
template <DType kType, int kDot>
ALBIREO_INLINE Codes nested_codes(const uint8_t* unit, [[maybe_unused]] const uint8_t* table) {
  constexpr int kBits = code_bits(kType);
  if constexpr (kBits >= 4) {
    const Codes low = bits_of_codes<kDot % 2 * 4, 15>(load_codes(unit + kDot / 2 * kWord));
    if constexpr (kBits == 5) return either(low, bits_of_codes<kDot - 4, 16>(load_codes(unit + 4 * kWord)));
    if constexpr (kBits == 6)
      return either(low, bits_of_codes<kDot % 4 * 2 - 4, 48>(load_codes(unit + (4 + kDot / 4) * kWord)));
    if constexpr (has_number_table(kType)) return looked_up(table, low);
    return low;
  } else {
    const Codes low = bits_of_codes<kDot % 4 * 2, 3>(load_codes(unit + kDot / 4 * kWord));
    if constexpr (kBits == 2) return low;
    const Codes all = either(low, bits_of_codes<kDot - 2, 4>(load_codes(unit + 2 * kWord)));
    if constexpr (has_number_table(kType)) return looked_up(table, all);
    return all;
  }
}

// use(dot, codes) of dots kFirst .. of a unit.
template <DType kType, int kFirst, int kCount, class Use>
ALBIREO_INLINE void for_dots(const uint8_t* unit, const uint8_t* table, Use use) {
  if constexpr (kCount > 0) {
    use(std::integral_constant<int, kFirst>(), nested_codes<kType, kFirst>(unit, table));
    for_dots<kType, kFirst + 1, kCount - 1>(unit, table, use);
  }
}

constexpr const uint8_t* codes_of_table(DType type) {
  return has_number_table(type) ? number_table(type).codes : nullptr;
}

inline int32_t bits_of_code(DType type, const uint8_t* at, int64_t dot) {
  switch (code_bits(type)) {
    case 2: return at[dot / 4 * kWord] >> dot % 4 * 2 & 3;
    case 3: return (at[dot / 4 * kWord] >> dot % 4 * 2 & 3) | (at[2 * kWord] >> dot & 1) << 2;
    case 4: return at[dot / 2 * kWord] >> dot % 2 * 4 & 15;
    case 5: return (at[dot / 2 * kWord] >> dot % 2 * 4 & 15) | (at[4 * kWord] >> dot & 1) << 4;
    default: return (at[dot / 2 * kWord] >> dot % 2 * 4 & 15) | (at[(4 + dot / 4) * kWord] >> dot % 4 * 2 & 3) << 4;
  }
}
// The same code of one column, for k of a unit.
inline int32_t nested_code(DType type, const uint8_t* unit, int64_t column, int64_t k) {
  const int32_t code = bits_of_code(type, unit + 4 * column + k % 4, k / 4);
  return has_number_table(type) ? number_table(type).codes[code] : code;
}

// What the codes of group g of a sub-panel at b are multiplied with, and their offsets, or zeros: exact, since a
// float16 times a byte is a float32.
struct NestedHead {
  V scale, other;
};
// What those of a nest's groups are multiples of.
struct Nest {
  V scale, offset;
};
ALBIREO_INLINE Nest nest_at(const Encoding& e, const uint8_t* nest) {
  const V scale = load((const f16*)nest);
  if (has_number_table(e.dtype)) return {mul(scale, set1(number_table(e.dtype).unit)), zero()};
  return {scale, e.affine ? load((const f16*)nest + kSubPanel) : zero()};
}
ALBIREO_INLINE NestedHead head_at(const Encoding& e, const Nest& nest, const uint8_t* steps) {
  if (!e.affine)
    return {mul(to_float(isub(bytes_to_ints(steps), iset1(kStepZero))), nest.scale), set1((float)nested_zero(e.dtype))};
  return {mul(to_float(bytes_to_ints(steps)), nest.scale),
          mul(to_float(bytes_to_ints(steps + kSubPanel)), nest.offset)};
}
ALBIREO_INLINE NestedHead nested_head(const Encoding& e, const uint8_t* b, int64_t g) {
  return head_at(e, nest_at(e, b + nest_place(e, g / (kNest / e.group))), b + steps_place(e, g));
}

}  // namespace
