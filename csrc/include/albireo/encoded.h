// How weights in few bits lie in a panel of 64 columns: four sub-panels of 16 columns, each contiguous over k. A word
// of a sub-panel is 16 columns by 4 bytes; k is padded to whole words, or to whole groups, with codes of zero.
//
//   kInt8             [K / 4 words]: codes of k .. k + 3 a column; behind the panel: scale float32 [64]
//   kInt8Group        for each group: head, then G / 4 words
//   kInt4Group        for each group: head, then G / 8 words: a byte holds k in its low half and k + 4 in its high half
//   kInt4Progressive  for each group: gamma [16], zero [16]; padded to 64 bytes; then all words as kInt4Group;
//                     behind the panel: scale float32 [64]
//   kFp4              for each group: scale [16], e8m0 or, of groups of 16, e4m3; padded to 64 bytes; then all words as
//                     kInt4Group, the codes e2m1; behind the panel: scale float32 [64], halved: see kTwiceE2M1
//   kFp8              [K / 4 words], padded to whole groups, of every four columns first k and k + 1, then k + 2 and k
//   + 3;
//                     behind the panel: scale float32 [groups][64]
//
//   kQ2K to kIQ1M     for each 256 k, a nest: scale float16 [16] and, affine, offset float16 [16]; for each of its
//                     groups a byte of scale [16] and, affine, one of offset [16]; padded to 64 bytes; then for each of
//                     its 32 k, a unit, as many words as a code has bits, in planes: see nested.inl. One stream: what
//                     a core fetches by itself ahead of reading loses its way where heads lie before all units
//
// A head is a line of 16 float32 scales whose last 8 bits are the zero; or, affine, a line of scales and one of
// offsets; or, wide, of zeros. Codes are unsigned: kInt8 is the number + 128.
#pragma once
#include "albireo/types.h"

namespace albireo {

constexpr int64_t kWord = kSubPanel * 4;       // bytes: codes of 16 columns at four k
constexpr int64_t kMaxIntegerDepth = 1 << 16;  // k that a sum of products of 8-bit numbers holds in 32 bits

struct Encoding {
  DType dtype;
  int64_t group;  // 0: all of k
  bool affine;
  bool wide = false;  // zeros have a line of their own, and scales all their bits
};

constexpr int64_t kNest = 256;  // k whose groups' scales are whole multiples of one number
constexpr int64_t kUnit = 32;   // k that lie in planes together
constexpr bool has_number_table(DType t) { return t >= DType::kIQ4XS && t <= DType::kIQ1M; }
constexpr int code_bits(DType nested) {
  if (!has_number_table(nested)) return 2 + (int)nested - (int)DType::kQ2K;
  return nested <= DType::kIQ3S ? 4 : 3;
}
constexpr int64_t nested_group(DType t) {
  if (has_number_table(t)) return t == DType::kIQ2S || t == DType::kIQ1M ? 16 : 32;
  return t == DType::kQ4K || t == DType::kQ5K ? 32 : 16;
}
constexpr bool is_nested_affine(DType t) { return t == DType::kQ2K || t == DType::kQ4K || t == DType::kQ5K; }

// The numbers of a table, plus its zero; what they are multiples of beside a nest's scale; and the largest of them.
struct NumberTable {
  uint8_t codes[16];
  int32_t zero, largest;
  float unit;
};
constexpr NumberTable kIQ4Numbers{
    {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241}, 128, 241, 1};
constexpr NumberTable kIQ3XXSNumbers{
    {2, 12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 92, 100, 108, 116, 126}, 64, 126, 0.25f};
constexpr NumberTable kIQ3SNumbers{{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31}, 16, 31, 1};
constexpr NumberTable kIQ2Numbers{{64, 21, 39, 56, 72, 89, 107, 64}, 64, 107, 0.125f};
constexpr NumberTable kIQ1Numbers{{7, 9, 15, 17, 23, 25, 16, 16}, 16, 25, 0.125f};
constexpr NumberTable kNumberTables[] = {kIQ4Numbers, kIQ3XXSNumbers, kIQ3SNumbers, kIQ2Numbers,
                                         kIQ2Numbers, kIQ1Numbers,    kIQ1Numbers};  // from kIQ4XS on
constexpr const NumberTable& number_table(DType t) { return kNumberTables[(int)t - (int)DType::kIQ4XS]; }

// Of codes in nests that have no offset, and of those that a table makes of them.
constexpr int32_t nested_zero(DType t) { return has_number_table(t) ? number_table(t).zero : 1 << (code_bits(t) - 1); }
// Of a byte of scale without offset, which is a number of either sign.
constexpr int32_t kStepZero = 128;

constexpr int64_t group_of(const Encoding& e, int64_t k) { return e.group ? e.group : k; }
constexpr int64_t num_groups(const Encoding& e, int64_t k) { return e.group ? ceil_div(k, e.group) : 1; }
constexpr int64_t head_bytes(const Encoding& e) { return e.affine || e.wide ? 2 * kWord : kWord; }
constexpr int64_t group_words(const Encoding& e) { return e.group / (e.dtype == DType::kInt8Group ? 4 : 8); }
constexpr int64_t group_bytes(const Encoding& e) { return head_bytes(e) + group_words(e) * kWord; }
// Of a group among the bytes before all words, and all of those.
constexpr int64_t gamma_step(const Encoding& e) { return e.dtype == DType::kFp4 ? kSubPanel : 2 * kSubPanel; }
constexpr int64_t gamma_bytes(const Encoding& e, int64_t k) { return round_up(num_groups(e, k) * gamma_step(e), 64); }

// Where the words of group g begin in a sub-panel; of encodings whose words know no groups there is one.
constexpr int64_t words_at(const Encoding& e, int64_t k, int64_t g) {
  if (e.dtype == DType::kInt8 || e.dtype == DType::kFp8) return 0;
  if (e.dtype == DType::kInt8Group || e.dtype == DType::kInt4Group) return g * group_bytes(e) + head_bytes(e);
  return gamma_bytes(e, k) + g * group_words(e) * kWord;
}

constexpr int64_t nest_head(const Encoding& e) { return (e.affine ? 2 : 1) * kSubPanel * 2; }
constexpr int64_t step_bytes(const Encoding& e) { return (e.affine ? 2 : 1) * kSubPanel; }
// Of what comes before a nest's units.
constexpr int64_t nest_bytes(const Encoding& e) { return round_up(nest_head(e) + kNest / e.group * step_bytes(e), 64); }
constexpr int64_t unit_bytes(DType nested) { return code_bits(nested) * kWord; }
// Where nest n of a sub-panel begins, the steps of group g, and unit u.
constexpr int64_t nest_place(const Encoding& e, int64_t n) {
  return n * (nest_bytes(e) + kNest / kUnit * unit_bytes(e.dtype));
}
constexpr int64_t steps_place(const Encoding& e, int64_t g) {
  const int64_t in_nest = kNest / e.group;
  return nest_place(e, g / in_nest) + nest_head(e) + g % in_nest * step_bytes(e);
}
constexpr int64_t unit_place(const Encoding& e, int64_t u) {
  constexpr int64_t kInNest = kNest / kUnit;
  return nest_place(e, u / kInNest) + nest_bytes(e) + u % kInNest * unit_bytes(e.dtype);
}

constexpr int64_t sub_panel_bytes(const Encoding& e, int64_t k) {
  if (is_nested(e.dtype)) return ceil_div(k, kNest) * nest_bytes(e) + ceil_div(k, kUnit) * unit_bytes(e.dtype);
  switch (e.dtype) {
    case DType::kInt8: return ceil_div(k, 4) * kWord;
    case DType::kFp8: return ceil_div(e.group ? num_groups(e, k) * e.group : k, 4) * kWord;
    case DType::kInt8Group:
    case DType::kInt4Group: return num_groups(e, k) * group_bytes(e);
    case DType::kFp4:
    case DType::kInt4Progressive: return gamma_bytes(e, k) + num_groups(e, k) * group_words(e) * kWord;
    default: return 0;
  }
}
constexpr int64_t tail_bytes(const Encoding& e, int64_t k) {
  switch (e.dtype) {
    case DType::kInt8:
    case DType::kFp4:
    case DType::kInt4Progressive: return kPanel * 4;
    case DType::kFp8: return num_groups(e, k) * kPanel * 4;
    default: return 0;
  }
}
constexpr int64_t encoded_panel_bytes(const Encoding& e, int64_t k) {
  return kSubPanels * sub_panel_bytes(e, k) + tail_bytes(e, k);
}
// What a panel of nibbles or planes becomes where many rows are multiplied with it: the same with a byte a code.
constexpr Encoding in_bytes(const Encoding& e) {
  return is_nested(e.dtype)                   ? Encoding{DType::kInt8Group, e.group, e.affine, !e.affine}
         : e.dtype == DType::kInt4Group       ? Encoding{DType::kInt8Group, e.group, e.affine}
         : e.dtype == DType::kFp4             ? Encoding{DType::kInt8Group, e.group, false}
         : e.dtype == DType::kInt4Progressive ? Encoding{DType::kInt8, 0, false}
                                              : e;
}
// Where the float8 code of a column of a sub-panel lies.
constexpr int64_t fp8_place(int64_t column, int64_t k) {
  return k / 4 * kWord + column / 4 * 16 + k % 4 / 2 * 8 + column % 4 * 2 + k % 2;
}
constexpr bool has_gammas(DType t) { return t == DType::kInt4Progressive || t == DType::kFp4; }
constexpr bool has_nibbles(DType t) { return t == DType::kInt4Group || has_gammas(t); }
// Whether codes of several k lie in a byte.
constexpr bool is_packed(DType t) { return has_nibbles(t) || is_nested(t); }
constexpr int32_t largest_code(DType t) {
  if (has_number_table(t)) return number_table(t).largest;
  return is_nested(t) ? (1 << code_bits(t)) - 1 : t == DType::kFp4 ? 24 : has_nibbles(t) ? 15 : 255;
}
// Whether the codes that are multiplied are below 128.
constexpr bool has_small_codes(DType t) { return is_packed(t) && largest_code(t) < 128; }
// Whether codes of a few bits stand for others, which a table has.
constexpr bool has_table(DType t) { return t == DType::kFp4 || has_number_table(t); }
// Twice an e2m1 number is a whole one; plus kE2M1Zero it is an unsigned code.
constexpr int32_t kE2M1Zero = 12;
constexpr uint8_t kTwiceE2M1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
// Whether scales of groups are e4m3, not e8m0.
constexpr bool has_e4m3_scales(const Encoding& e) { return e.group == 16; }
// Scratch for that.
constexpr int64_t unpacked_bytes(const Encoding& e, int64_t k) {
  if (e.dtype == DType::kFp8) return (round_up(k, 2) * 2 + kMostChunk * 4) * kPanel;
  return is_packed(e.dtype) ? kSubPanels * sub_panel_bytes(in_bytes(e), k) : 0;
}

}  // namespace albireo
