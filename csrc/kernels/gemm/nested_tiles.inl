// The register tiles of types with nests: planes and scales as they lie. Include after integers.inl's dots.
#pragma once
#include "kernels/gemm/group_sums.inl"
#include "kernels/gemm/nested.inl"

namespace {

// sums += dots kFirst .. of a unit of a type with nests, for MR rows whose codes of the first of them are at a; in 16
// bits where kIsNarrow. Not with a lambda: sums that one refers to are written to memory after each dot by g++ 12.
template <DType kType, bool kIsNarrow, bool kIsFirst, int kFirst, int kCount, int MR>
ALBIREO_INLINE void unit_dots(VI (&sums)[MR][1], const int8_t* a, int64_t lda, const uint8_t* unit,
                              const uint8_t* table) {
  if constexpr (kCount > 0) {
    const Codes w[1] = {nested_codes<kType, kFirst>(unit, table)};
    if constexpr (kIsNarrow) narrow_dot4<kIsFirst, MR, 1>(sums, w, a, lda);
    else dot4<MR, 1, has_small_codes(kType)>(sums, w, a, lda);
    unit_dots<kType, kIsNarrow, false, kFirst + 1, kCount - 1, MR>(sums, a + TokenRows::step<MR, 1>(), lda, unit,
                                                                   table);
  }
}
template <DType kType, int kFirst, int kCount, int MR>
ALBIREO_INLINE void nested_dots(VI (&acc)[MR][1], const int8_t* a, int64_t lda, const uint8_t* unit,
                                const uint8_t* table) {
  if constexpr (narrow_run<kType>() == 0) {
    unit_dots<kType, false, false, kFirst, kCount, MR>(acc, a, lda, unit, table);
  } else if constexpr (kCount > 0) {
    constexpr int kRun = narrow_run<kType>() < kCount ? narrow_run<kType>() : kCount;
    VI sums[MR][1];
    unit_dots<kType, true, true, kFirst, kRun, MR>(sums, a, lda, unit, table);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) acc[i][0] = iadd(acc[i][0], widened(sums[i][0]));
    nested_dots<kType, kFirst + kRun, kCount - kRun, MR>(acc, a + kRun * TokenRows::step<MR, 1>(), lda, unit, table);
  }
}

// Not a lambda: g++ takes one that only fetches for one that does nothing, and leaves it out.
template <int64_t kBytes>
ALBIREO_INLINE void fetch_lines(const uint8_t* at) {
#pragma GCC unroll 16
  for (int64_t byte = 0; byte < kBytes; byte += kWord) prefetch_l1((const char*)at + byte);
}

// Group g of a type with nests, whose dots begin at kFirst of the unit at unit, added to what MR rows have so far.
// held: where that lies, if registers have no room for it.
template <DType kType, int kFirst, int MR>
ALBIREO_INLINE void nested_group_of(V (&total)[MR], float* held, const int8_t* a, int64_t lda, const GroupSums sums,
                                    int64_t g, const NestedHead head, const uint8_t* unit, const uint8_t* table) {
  constexpr bool kOneZero = has_one_zero(kType);
  VI acc[MR][1];
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) acc[i][0] = kOneZero ? sums.start(i, g) : izero();
  nested_dots<kType, kFirst, nested_group(kType) / 4, MR>(acc, a, lda, unit, table);
  const ScaledGroups::Head h{head.scale, head.other};
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
    if constexpr (ScaledGroups::stay<MR, 1>())
      total[i] = ScaledGroups::sum_of<kOneZero>(total[i], acc[i][0], h, sums, i, g, !kOneZero);
    else {
      float* at = held + i * kSubPanel;
      store(at, ScaledGroups::sum_of<kOneZero>(load(at), acc[i][0], h, sums, i, g, !kOneZero));
    }
}

// Groups first .. end of MR rows by one sub-panel of a type with nests, of which kType has the bits and the groups, as
// group_tile adds them up of the bytes that in_bytes() names. first: of a nest.
template <DType kType, int MR>
ALBIREO_INLINE void nested_tile(const TokenRows x, const GroupSums sums, DType type, const uint8_t* b, int64_t first,
                                int64_t end, float* c, int64_t ldc, int64_t fetch_bytes) {
  constexpr int kGroup = nested_group(kType), kDots = kGroup / 4, kGroups = kUnit / kGroup;
  constexpr bool kStay = ScaledGroups::stay<MR, 1>();
  constexpr Encoding kWhole{kType, kGroup, is_nested_affine(kType)};
  const Encoding e{has_number_table(kType) ? type : kType, kGroup, kWhole.affine};
  const uint8_t* table = codes_of_table(e.dtype);
  const int8_t* a = x.codes + first * kDots * TokenRows::step<MR, 1>();
  V total[MR];
  alignas(64) float room[kStay ? 1 : MR * kSubPanel];
  float* held = room;
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++) {
    const V before = first ? load(c + i * ldc) : zero();
    if constexpr (kStay) total[i] = before;
    else store(held + i * kSubPanel, before);
  }
  b += nest_place(kWhole, first / (kNest / kGroup));
  for (int64_t g = first; g < end;) {
    fetch_lines<nest_bytes(kWhole)>(b + fetch_bytes);
    const Nest nest = nest_at(e, b);
    const uint8_t* steps = b + nest_head(kWhole);
    b += nest_bytes(kWhole);
    const int64_t last = g + kNest / kGroup < end ? g + kNest / kGroup : end;
    for (; g < last; g += kGroups, b += unit_bytes(kType), steps += kGroups * step_bytes(kWhole)) {
      fetch_lines<unit_bytes(kType)>(b + fetch_bytes);
      if constexpr (!kStay) asm("" : "+r"(held));
      nested_group_of<kType, 0, MR>(total, held, a, x.row_step<1>(), sums, g - first, head_at(e, nest, steps), b,
                                    table);
      a += kDots * TokenRows::step<MR, 1>();
      if constexpr (kGroups == 2)
        if (g + 1 < end) {
          nested_group_of<kType, kDots, MR>(total, held, a, x.row_step<1>(), sums, g + 1 - first,
                                            head_at(e, nest, steps + step_bytes(kWhole)), b, table);
          a += kDots * TokenRows::step<MR, 1>();
        }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
    if constexpr (kStay) store(c + i * ldc, total[i]);
    else store(c + i * ldc, load(held + i * kSubPanel));
}

}  // namespace
