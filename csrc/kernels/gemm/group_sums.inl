// What the end of a group adds to a row's number, and the sums of tokens' codes that it takes. Include after a
// vec_<isa>.h.
#pragma once
#include "albireo/encoded.h"
#include "albireo/tokens.h"

namespace {

// Codes and sums of tokens. Codes lie in rows, ld bytes apart; or, for tiles one vector wide, so that what a tile reads
// in one step lies together, see Activations::interleaved: then all distances are known when the tile is compiled.
struct TokenRows {
  const int8_t* codes;
  int64_t ld;
  const float* sums;
  int64_t ld_sums;  // floats

  template <int NV>
  ALBIREO_INLINE int64_t row_step() const {
    return is_interleaved<NV>() ? 4 : ld;
  }
  template <int MR, int NV>  // bytes from four k to the next four
  static constexpr int64_t step() {
    return is_interleaved<NV>() ? 4 * MR : 4;
  }
  template <int NV>
  static constexpr bool is_interleaved() {
#ifdef ALBIREO_TALL_ROWS
    return NV == 1;
#else
    return false;
#endif
  }
  float sum(int64_t row, int64_t from, int64_t to) const {
    return sums[row * ld_sums + to] - sums[row * ld_sums + from];
  }
};

// Whether all codes of a type with groups stand above zero by as much. What that makes of a group's sum is a whole
// number that its dots begin with, so that no column multiplies anything for it: kOneZero. (Looking whether it is so
// of a panel of kInt8Group or kInt4Group takes as long as is saved.)
constexpr bool has_one_zero(DType t) { return t == DType::kFp4 || (is_nested(t) && !is_nested_affine(t)); }
constexpr int32_t zero_of_all(DType t) { return t == DType::kFp4 ? kE2M1Zero : has_one_zero(t) ? nested_zero(t) : 0; }

// Sums of the codes of each group of rows, from the first group on that a tile multiplies: once for all sub-panels.
// Where they are taken off, what they are less than nothing, since a register for a sign is one too many.
constexpr int64_t kMostGroups = 256;
struct GroupSums {
  const float* sums;  // kOneZero: what a group's dots begin with, in 32 bits
  float of(int64_t row, int64_t g) const { return sums[row * kMostGroups + g]; }
  VI start(int64_t row, int64_t g) const { return iset1(((const int32_t*)sums)[row * kMostGroups + g]); }
};
template <int kStep>  // sums from one group to the next; 0: step, which is not known before
inline void note_differences(const float* sums, int64_t step, int64_t count, bool is_affine, float* to) {
  const int64_t each = kStep ? kStep : step;
  if (is_affine)
    for (int64_t g = 0; g < count; g++) to[g] = sums[(g + 1) * each] - sums[g * each];
  else
    for (int64_t g = 0; g < count; g++) to[g] = sums[g * each] - sums[(g + 1) * each];
}
// zero: what codes of a dot product are above zero by, if kOneZero.
template <bool kOneZero>
inline GroupSums sums_of_groups(const TokenRows& x, int64_t rows, const Encoding& e, int32_t zero, int64_t k,
                                int64_t first, int64_t end, float* to) {
  const int64_t step = e.group / kSumStep, last = sum_at(k, k), whole = end * step <= last ? end : end - 1;
  for (int64_t i = 0; i < rows; i++, to += kMostGroups) {
    const float* sums = x.sums + i * x.ld_sums;
    const auto note = step == 1 ? note_differences<1> : step == 2 ? note_differences<2> : note_differences<0>;
    note(sums + first * step, step, whole - first, e.affine, to);
    if (whole < end) note_differences<0>(sums + whole * step, last - whole * step, 1, e.affine, to + whole - first);
    if constexpr (kOneZero)
      for (int64_t g = 0; g < end - first; g++) ((int32_t*)to)[g] = zero * (int32_t)to[g];
  }
  return {to - rows * kMostGroups};
}

// What happens to a group's sum: kInt8Group, kInt4Group, kFp4.
struct ScaledGroups {
  static constexpr bool kNibbles = false;
  struct Head {
    V scale, other;
  };
  static ALBIREO_INLINE Head head(const Encoding& e, const uint8_t* at) {
    if (e.affine || e.wide) return {load((const float*)at), load((const float*)(at + kWord))};
    const VI words = iload((const int32_t*)at);
    return {without_low_byte(words), to_float(low_byte(words))};
  }
  // Whether a tile's numbers stay in registers from group to group, beside its sums, its weights and a group's heads.
  // A group of 32 is 8 dots: reading and writing its number takes as long as they do.
  template <int MR, int NV>
  static constexpr bool stay() {
    return 2 * MR * NV + 3 * NV <= kRegisters - 2;
  }
  // sum: of the token's codes; unless the encoding is affine, less it.
  static ALBIREO_INLINE V added(V before, VI acc, const Head& h, float sum, bool is_affine) {
    const V v = to_float(acc);  // whole numbers below 2^24: exact, and so is what the zero takes off
    if (is_affine) return fma(h.other, set1(sum), fma(v, h.scale, before));
    return fma(fma(h.other, set1(sum), v), h.scale, before);
  }
  // The same of row i and group g.
  template <bool kOneZero>
  static ALBIREO_INLINE V sum_of(V before, VI acc, const Head& h, const GroupSums sums, int i, int64_t g,
                                 bool is_affine) {
    if constexpr (kOneZero) return fma(to_float(acc), h.scale, before);
    else return added(before, acc, h, sums.of(i, g), is_affine);
  }
};

}  // namespace
