// The register tiles of weights in few bits: unsigned codes of a column times signed codes of a token, added exactly in
// 32 bits. Include after gemm.inl.
//
// All of k is one integer sum for kInt8 and kInt4Progressive, and so the same whatever computes it. Of a group encoding
// each group is one, and the groups are added as one chain of float32, ascending.
#include <bit>

#include "albireo/encoded.h"
#include "albireo/tokens.h"
#include "kernels/gemm/fp4.inl"
#include "kernels/gemm/group_sums.inl"
#include "kernels/gemm/panels.h"
#include "kernels/gemm/unpack.inl"

namespace {

struct WeightInt8 {
  using A = int8_t;
  using B = uint8_t;
  using Acc = VI;
  static constexpr int kStep = 4;
  static constexpr bool kTokens = true, kToBF16 = false;
  static ALBIREO_INLINE Acc start() { return izero(); }
  static ALBIREO_INLINE Acc get(const float* c) { return iload((const int32_t*)c); }
  static ALBIREO_INLINE void keep_sum(float* c, Acc sum) { istore((int32_t*)c, sum); }
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(Acc (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
    Codes w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) w[j] = load_codes(b(j));
    dot4<MR, NV, false>(acc, w, a, lda);
  }
};

template <>
constexpr bool kInRowPairs<WeightInt8> = true;

// What nibbles are to a dot product.
template <DType kType>
ALBIREO_INLINE Codes code_of(Codes nibbles) {
  return kType == DType::kFp4 ? looked_up(kTwiceE2M1, nibbles) : nibbles;
}

#ifdef ALBIREO_HAVE_ROW_PAIRS
template <DType kType>
ALBIREO_INLINE std::pair<I4, I4> nibble_words(const uint8_t* at, int q) {
  Codes w{};
  w.q[q] = read<B16>(at + 16 * q);
  return {(I4)code_of<kType>(low_nibbles(w)).q[q], (I4)code_of<kType>(high_nibbles(w)).q[q]};
}
#endif

// How many dot products of such codes a level adds in 16 bits: a power of two, as groups are; 0: it adds in 32, as it
// does where that would be one alone.
template <DType kType>
constexpr int narrow_run() {
  const int dots = narrow_dots(largest_code(kType));
  return dots < 2 ? 0 : (int)std::bit_floor((unsigned)dots);
}

// A word's dots in 16 bits, at step s of a group. kFirst: sums are its products, whatever was there before.
template <DType kType, bool kFirst, int MR, int NV, class Ptr>
ALBIREO_INLINE void narrow_word_dots(VI (&sums)[MR][NV], const int8_t* a, int64_t lda, int64_t s, Ptr b) {
  constexpr int kDots = has_nibbles(kType) ? 2 : 1;
#pragma GCC unroll 2
  for (int dot = 0; dot < kDots; dot++) {
    Codes w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      w[j] = load_codes(b(j) + s * kWord);
      if constexpr (has_nibbles(kType)) w[j] = code_of<kType>(dot ? high_nibbles(w[j]) : low_nibbles(w[j]));
    }
    if (kFirst && dot == 0) narrow_dot4<true, MR, NV>(sums, w, a, lda);
    else narrow_dot4<false, MR, NV>(sums, w, a + dot * TokenRows::step<MR, NV>(), lda);
  }
}

// So many words in 16 bits, at most as many as those sums hold.
template <DType kType, int MR, int NV, class Ptr>
ALBIREO_INLINE void narrow_words(VI (&sums)[MR][NV], const int8_t* a, int64_t lda, int64_t s, int64_t end, Ptr b,
                                 const char* ahead) {
  constexpr int64_t kAdvance = (has_nibbles(kType) ? 2 : 1) * TokenRows::step<MR, NV>();
  prefetch_l1(ahead + kWord * s);
  narrow_word_dots<kType, true, MR, NV>(sums, a, lda, s, b);
  for (s++, a += kAdvance; s < end; s++, a += kAdvance) {
    prefetch_l1(ahead + kWord * s);
    narrow_word_dots<kType, false, MR, NV>(sums, a, lda, s, b);
  }
}

// group_dots where products are added in 16 bits, kRun at a time. A loop of its own: where both kinds of sums went
// through one, g++ 12 copied sums of 32 bits. The first run is apart: a group of one run has no sums in memory then.
template <DType kType, int kRun, int MR, int NV, class Start, class Ptr>
ALBIREO_INLINE void narrow_group_dots(VI (&acc)[MR][NV], Start start, const int8_t* a, int64_t lda, int64_t words,
                                      Ptr b, const char* ahead) {
  constexpr int kDots = has_nibbles(kType) ? 2 : 1;
  constexpr int64_t kWords = kRun / kDots, kAdvance = kRun * TokenRows::step<MR, NV>();
  VI sums[MR][NV];
  narrow_words<kType, MR, NV>(sums, a, lda, 0, words < kWords ? words : kWords, b, ahead);
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) acc[i][j] = iadd(start(i), widened(sums[i][j]));
  for (int64_t s = kWords; s < words; s += kWords) {
    a += kAdvance;
    narrow_words<kType, MR, NV>(sums, a, lda, s, words - s < kWords ? words : s + kWords, b, ahead);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) acc[i][j] = iadd(acc[i][j], widened(sums[i][j]));
  }
}

// acc: one group's steps for MR rows by NV sub-panels, of codes of kCodes that lie as those of kType: nibbles, or
// bytes. start(i): what the sums of row i begin with.
template <DType kType, DType kCodes, int MR, int NV, class Start, class Ptr>
ALBIREO_INLINE void group_dots(VI (&acc)[MR][NV], Start start, const int8_t* a, int64_t lda, int64_t words, Ptr b,
                               const char* ahead) {
  if constexpr (narrow_run<kCodes>() > 0)
    return narrow_group_dots<kType, narrow_run<kCodes>(), MR, NV>(acc, start, a, lda, words, b, ahead);
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) acc[i][j] = start(i);
  constexpr int64_t advance = TokenRows::step<MR, NV>();
  int64_t done = 0;
#ifdef ALBIREO_HAVE_ROW_PAIRS
  if constexpr (MR > 1 && NV == 1) {
    RowPairs<MR> pairs(acc);
    if constexpr (has_nibbles(kType)) {
      for (; done < words; done++, a += 8) {
        prefetch_l1(ahead + kWord * done);
        const uint8_t* at = b(0) + done * kWord;
        pairs.add([&](int q) { return nibble_words<kType>(at, q); }, (const char*)a, lda);
      }
    } else {
      for (; done + 2 <= words; done += 2, a += 8) {
        prefetch_l1(ahead + kWord * done);
        prefetch_l1(ahead + kWord * done + kWord);
        const uint8_t* at = b(0) + done * kWord;
        pairs.add([&](int q) { return two_words(at, at + kWord, q); }, (const char*)a, lda);
      }
    }
    pairs.give(acc);
  }
#endif
  for (int64_t s = done; s < words; s++) {
    prefetch_l1(ahead + kWord * s);
    Codes w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) w[j] = load_codes(b(j) + s * kWord);
    if constexpr (has_nibbles(kType)) {
      Codes half[NV];
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) half[j] = code_of<kType>(low_nibbles(w[j]));
      dot4<MR, NV, true>(acc, half, a, lda);
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) half[j] = code_of<kType>(high_nibbles(w[j]));
      dot4<MR, NV, true>(acc, half, a + advance, lda);
      a += 2 * advance;
    } else {
      dot4<MR, NV, has_small_codes(kCodes)>(acc, w, a, lda);
      a += advance;
    }
  }
}

// Groups first .. end of MR rows by NV sub-panels that lie as those of kStored: bytes, nibbles, or nibbles behind all
// scales; kCodes: what codes are. c is added to unless first is 0. x, sums and e by value: what is stored could be
// theirs otherwise, and they were read again for each row.
template <bool kOneZero, DType kStored, DType kCodes, int MR, int NV>
ALBIREO_INLINE void group_tile(const TokenRows x, const GroupSums sums, const Encoding e, int64_t k, const uint8_t* b,
                               int64_t sub, int64_t first, int64_t end, float* c, int64_t ldc, const char* ahead) {
  constexpr bool kIsOff = kDotZero != 0 && !has_small_codes(kCodes);  // sums are of codes less kDotZero
  constexpr bool kStay = ScaledGroups::stay<MR, NV>(), kIsApart = has_gammas(kStored);
  const int64_t words = group_words(e), fours = e.group / 4, head = kIsApart ? 0 : head_bytes(e);
  const int64_t stride = head + words * kWord;
  const uint8_t* codes = kIsApart ? b + gamma_bytes(e, k) : b;
  V total[MR][NV];
  // Numbers that registers have no room for, at distances that are known. g++ must not see whose they are: it would
  // give them registers, and the sums of the loop of dots none.
  alignas(64) float room[kStay ? 1 : MR * NV * kSubPanel];
  float* held = room;
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      const V before = first ? load(c + i * ldc + kSubPanel * j) : zero();
      if constexpr (kStay) total[i][j] = before;
      else store(held + (i * NV + j) * kSubPanel, before);
    }
  for (int64_t g = first; g < end; g++) {
    VI acc[MR][NV];
    const uint8_t* at = codes + g * stride;
    if constexpr (!kIsApart) prefetch_l1(ahead + (g - first) * stride);
    if constexpr (!kStay) asm("" : "+r"(held));
    // Behind k codes of a weight are zeros, which are none less kDotZero, and a token has zeros to the next 64 only.
    const int64_t left = kIsOff && k - g * e.group < e.group ? ceil_div(k - g * e.group, 4) : words;
    group_dots<kStored, kCodes, MR, NV>(
        acc, [&](int i) { return kOneZero ? sums.start(i, g - first) : izero(); },
        x.codes + g * fours * TokenRows::step<MR, NV>(), x.row_step<NV>(), left,
        [&](int j) { return at + j * sub + head; }, ahead + (g - first) * stride + head);
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      ScaledGroups::Head h;
      if constexpr (kIsApart) h.scale = scale_of_group(e, b + j * sub, g);
      else h = ScaledGroups::head(e, at + j * sub);
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++) {
        if constexpr (kIsOff && !kOneZero) {
          const VI off = iset1(kDotZero * (int32_t)sums.of(i, g - first));
          acc[i][j] = e.affine ? iadd(acc[i][j], off) : isub(acc[i][j], off);
        }
        if constexpr (kStay) {
          total[i][j] = ScaledGroups::sum_of<kOneZero>(total[i][j], acc[i][j], h, sums, i, g - first, e.affine);
        } else {
          float* at = held + (i * NV + j) * kSubPanel;
          store(at, ScaledGroups::sum_of<kOneZero>(load(at), acc[i][j], h, sums, i, g - first, e.affine));
        }
      }
    }
  }
  asm("" : "+r"(c), "+r"(ldc));  // or addresses of rows are kept through the loop, in registers of sums
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) {
      float* to = c + i * ldc + kSubPanel * j;
      if constexpr (kStay) store(to, total[i][j]);
      else store(to, load(held + (i * NV + j) * kSubPanel));
    }
}

// All of k for MR rows by one sub-panel of kInt4Progressive; c: whole numbers.
template <int MR>
ALBIREO_INLINE void progressive_tile(const TokenRows& x, const Encoding& e, int64_t k, const uint8_t* b, float* c,
                                     int64_t ldc, int64_t fetch_bytes) {
  const int64_t words = group_words(e), fours = e.group / 4, groups = num_groups(e, k);
  const uint8_t* codes = b + gamma_bytes(e, k);
  for (int64_t g = 0; g < groups; g++) {
    VI acc[MR][1];
    const uint8_t* at = codes + g * words * kWord;
    group_dots<DType::kInt4Progressive, DType::kInt4Progressive, MR, 1>(
        acc, [](int) { return izero(); }, x.codes + g * fours * TokenRows::step<MR, 1>(), x.row_step<1>(), words,
        [&](int) { return at; }, (const char*)at + fetch_bytes);
    const VI gamma = bytes_to_ints(b + g * 32), zero = bytes_to_ints(b + g * 32 + 16);
    const int64_t from = sum_at(k, g * e.group), to = sum_at(k, (g + 1) * e.group);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) {
      int32_t* at_c = (int32_t*)(c + i * ldc);
      const VI whole = imul(gamma, isub(acc[i][0], imul(zero, iset1((int32_t)x.sum(i, from, to)))));
      istore(at_c, g == 0 ? whole : iadd(iload(at_c), whole));
    }
  }
}

}  // namespace
#include "kernels/gemm/nested_tiles.inl"
namespace {

// A height of tile each, as functions: what is inlined into a table is not inlined into the loops round it.
template <bool kOneZero, DType kStored, DType kCodes, int MR, int NV>
void group_tile_of(const TokenRows& x, const GroupSums sums, const Encoding& e, int64_t k, const uint8_t* b,
                   int64_t sub, int64_t first, int64_t end, float* c, int64_t ldc, const char* ahead) {
  group_tile<kOneZero, kStored, kCodes, MR, NV>(x, sums, e, k, b, sub, first, end, c, ldc, ahead);
}
template <DType kType, int MR>
void nested_tile_of(const TokenRows& x, const GroupSums sums, DType type, const uint8_t* b, int64_t first, int64_t end,
                    float* c, int64_t ldc, int64_t fetch_bytes) {
  nested_tile<kType, MR>(x, sums, type, b, first, end, c, ldc, fetch_bytes);
}
template <int MR>
void progressive_tile_of(const TokenRows& x, const Encoding& e, int64_t k, const uint8_t* b, float* c, int64_t ldc,
                         int64_t fetch_bytes) {
  progressive_tile<MR>(x, e, k, b, c, ldc, fetch_bytes);
}

// Rows by all four sub-panels, NV at a time. ahead: what is fetched beside the first; of sub-panel j, j steps further.
template <bool kOneZero, DType kStored, DType kCodes, int NV, int... I>
void group_rows(int64_t rows, const TokenRows& x, const GroupSums sums, const Encoding& e, int64_t k, const uint8_t* b,
                int64_t first, int64_t end, float* c, int64_t ldc, const uint8_t* ahead, int64_t step,
                std::integer_sequence<int, I...>) {
  using Fn = void (*)(const TokenRows&, GroupSums, const Encoding&, int64_t, const uint8_t*, int64_t, int64_t, int64_t,
                      float*, int64_t, const char*);
  static constexpr Fn kRows[] = {group_tile_of<kOneZero, kStored, kCodes, 1 + I, NV>...};
  const int64_t sub = sub_panel_bytes(e, k);
  for (int64_t j = 0; j < kSubPanels; j += NV)
    kRows[rows - 1](x, sums, e, k, b + j * sub, sub, first, end, c + kSubPanel * j, ldc, (const char*)ahead + j * step);
}

// The same of types with nests, as they lie.
template <DType kType, int... I>
void nested_rows(int64_t rows, const TokenRows& x, const GroupSums sums, const Encoding& e, int64_t k, const uint8_t* b,
                 int64_t first, int64_t end, float* c, int64_t ldc, int64_t fetch, std::integer_sequence<int, I...>) {
  using Fn = void (*)(const TokenRows&, GroupSums, DType, const uint8_t*, int64_t, int64_t, float*, int64_t, int64_t);
  static constexpr Fn kRows[] = {nested_tile_of<kType, 1 + I>...};
  for (int64_t j = 0; j < kSubPanels; j++)
    kRows[rows - 1](x, sums, e.dtype, b + j * sub_panel_bytes(e, k), first, end, c + kSubPanel * j, ldc, fetch);
}

// The same of kInt4Progressive, which is one sum.
template <int... I>
void progressive_rows(int64_t rows, const TokenRows& x, const Encoding& e, int64_t k, const uint8_t* b, float* c,
                      int64_t ldc, int64_t fetch, std::integer_sequence<int, I...>) {
  using Fn = void (*)(const TokenRows&, const Encoding&, int64_t, const uint8_t*, float*, int64_t, int64_t);
  static constexpr Fn kRows[] = {progressive_tile_of<1 + I>...};
  for (int64_t j = 0; j < kSubPanels; j++)
    kRows[rows - 1](x, e, k, b + j * sub_panel_bytes(e, k), c + kSubPanel * j, ldc, fetch);
}

}  // namespace
#ifdef ALBIREO_TILES
#include "kernels/gemm/tiles_groups.inl"
#endif
namespace {

// One panel of weights in few bits after another, times rows of tokens.
template <DType kType>
struct EncodedPanels final : Panels {
  using A = int8_t;
  static constexpr bool kIsGroup =
      kType == DType::kInt8Group || kType == DType::kInt4Group || kType == DType::kFp4 || is_nested(kType);
  const Args& a;
  Activations<WeightInt8> x;
  const Encoding e;
  uint8_t* unpacked;
  int64_t unpacked_panel = -1;
  bool unpacked_for_tiles = false;

  EncodedPanels(const Args& a, Scratch& scratch, char* memory)
      : a(a),
        x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (int8_t*)memory},
        e{a.w_dtype, a.group, a.affine != 0},
        unpacked((uint8_t*)memory + activation_copy_bytes(a.k)) {}

  const float* sums(int64_t m) const {
    return (const float*)((const char*)a.x + m * x.source_stride + token_codes(a.k) + 4);
  }

  void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) override {
    const uint8_t* b = (const uint8_t*)a.weight + panel * encoded_panel_bytes(e, a.k);
    const uint8_t* next = b + encoded_panel_bytes(e, a.k);
    const float* scale = (const float*)(b + kSubPanels * sub_panel_bytes(e, a.k));
    const bool is_few = rows <= few_rows() && !is_tiled(rows);
    if (is_few && kType != DType::kInt8) {
      const int64_t height = ceil_div(rows, ceil_div(rows, kFew));
      for (int64_t i = 0; i < rows; i += height) {
        const int64_t h = rows - i < height ? rows - i : height;
        const TokenRows t = token_rows(m, rows, i, height);
        if constexpr (kType == DType::kInt4Progressive)
          progressive_rows(h, t, e, a.k, b, c + i * ldc, ldc, a.tuning.fetch_bytes,
                           std::make_integer_sequence<int, kFew>());
        else if constexpr (kIsGroup) few_rows_of_groups(t, h, b, c + i * ldc, ldc);
      }
    } else {
      if constexpr (is_packed(kType)) {
        if (panel != unpacked_panel || is_tiled(rows) != unpacked_for_tiles) unpack(b, is_tiled(rows));
        unpacked_panel = panel, unpacked_for_tiles = is_tiled(rows);
        b = unpacked;
      }
      if (is_tiled(rows)) tiled_rows(m, rows, b, c, ldc);
      else if constexpr (kIsGroup) many_rows(m, rows, b, next, c, ldc);
      else panel_product<WeightInt8>(x, m, rows, b, ceil_div(a.k, 4), c, ldc, a.tuning);
    }
    const bool is_signed = kType == DType::kInt4Progressive && is_few;
    for (int64_t i = 0; i < rows; i++) scale_row(c + i * ldc, m + i, scale, is_signed ? 0 : 128 - kDotZero);
  }

 private:
#ifdef ALBIREO_TALL_ROWS
#ifdef ALBIREO_HAVE_BYTE_DOT
  static constexpr bool kIsDear = false;
#else  // Codes that are not added in 16 bits cost a token more than wider tiles, which share that.
  static constexpr bool kIsDear = has_number_table(kType) || kType == DType::kInt8Group;
#endif
  // As many as whose numbers stay in registers from group to group; where all of a column is multiplied alike, more.
  static constexpr int kFew = !kIsGroup ? 24 : kIsDear ? 6 : 12;
  // How often a panel is gone over as it lies rather than made to bytes.
  static constexpr int kFewPasses = !kIsGroup || kIsDear ? 1 : kType == DType::kFp4 ? 2 : 3;
  int64_t few_rows() const { return a.tuning.tall_rows < kFew * kFewPasses ? a.tuning.tall_rows : kFew * kFewPasses; }
  TokenRows token_rows(int64_t m, int64_t rows, int64_t i, int64_t height) {
    return {x.interleaved(m, rows, height) + i * token_codes(a.k), 4, sums(m + i), x.source_stride / 4};
  }
#else
  static constexpr int kFew = is_nested(kType) && kFewRows < 6 ? 6 : kFewRows;
  static constexpr bool kIsDear = kType == DType::kFp4 || (is_nested(kType) && nested_group(kType) == 16);
  static constexpr int kFewPasses = kIsGroup && !kIsDear ? 2 : 1;
  int64_t few_rows() const { return kFew * kFewPasses; }
  TokenRows token_rows(int64_t m, int64_t, int64_t i, int64_t) {
    return {(const int8_t*)a.x + (m + i) * x.source_stride, x.source_stride, sums(m + i), x.source_stride / 4};
  }
#endif

#ifdef ALBIREO_TILES
  // Making a panel of small groups to bytes and ending them takes longer than as many rows as pass it as it lies.
  bool is_tiled(int64_t rows) const {
    const bool lies = kIsGroup && is_packed(kType) && e.group <= 32;
    return rows >= kTileSide && !(lies && rows <= few_rows());
  }
  void tiled_rows(int64_t m, int64_t rows, const uint8_t* b, float* c, int64_t ldc) {
    const int8_t* codes = (const int8_t*)a.x + m * x.source_stride;
    const int64_t words = ceil_div(a.k, 4);
    if constexpr (kIsGroup) {
      const TokenRows t{codes, x.source_stride, sums(m), x.source_stride / 4};
      const Encoding bytes = tile_bytes(e);
      if constexpr (is_packed(kType))
        if (!e.affine) return tiles.template product<TileCodes::kSigned>(t, rows, bytes, a.k, b, c, ldc);
      if constexpr (!is_packed(kType))
        if (!e.affine) return tiles.template product<TileCodes::kWithZeros>(t, rows, bytes, a.k, b, c, ldc);
      if constexpr (!kOneZero) tiles.template product<TileCodes::kWithOffsets>(t, rows, bytes, a.k, b, c, ldc);
    } else {
      tiles.template product<true>((const char*)codes, x.source_stride, rows, (const char*)b, words * kWord, words, c,
                                   ldc);
    }
  }
  void unpack(const uint8_t* b, bool for_tiles) {
    if constexpr (kIsGroup)
      if (for_tiles) return unpack_tile_panel(e, a.k, b, unpacked);
    unpack_panel(e, a.k, b, unpacked);
  }
  std::conditional_t<kIsGroup, GroupTiles<ALBIREO_TILES>, Tiles<ALBIREO_TILES>> tiles;
#else
  static constexpr bool is_tiled(int64_t) { return false; }
  void tiled_rows(int64_t, int64_t, const uint8_t*, float*, int64_t) {}
  void unpack(const uint8_t* b, bool) { unpack_panel(e, a.k, b, unpacked); }
#endif

  static constexpr int kMostSums = kIsGroup ? (kFew > kTileRows ? kFew : kTileRows) * kMostGroups : 1;
  alignas(64) float group_sums[kMostSums];

  static constexpr int kGroupVectors = kTileVectors == 4 ? 2 : kTileVectors;  // then a group's numbers stay
  static constexpr int64_t kNear = 1024;                                      // bytes from L2 to L1 ahead of a tile
  static constexpr int64_t kFetched = 2;  // sub-panels of bytes, of four, that are about what the memory has of a panel

  // What codes in bytes are: where all are multiplied alike, one code serves all.
  static constexpr bool kIsDearer = kDotZero != 0 || narrow_dots(1) > 0;
  static constexpr DType kBytes = kIsDearer && has_small_codes(kType) ? kType : DType::kInt8Group;

  static constexpr bool kOneZero = has_one_zero(kType);
  // What codes of kCodes are above zero by in a dot product, if all are.
  template <DType kCodes>
  int32_t zero_of_dots() const {
    return zero_of_all(e.dtype) - (has_small_codes(kCodes) ? 0 : kDotZero);
  }

  // Tiles of rows that go over the panel as it lies.
  void few_rows_of_groups(const TokenRows& t, int64_t rows, const uint8_t* b, float* c, int64_t ldc) {
    const int64_t groups = num_groups(e, a.k);
    for (int64_t first = 0; first < groups; first += kMostGroups) {
      const int64_t end = first + kMostGroups < groups ? first + kMostGroups : groups;
      const GroupSums sums = sums_of_groups<kOneZero>(t, rows, e, zero_of_dots<kType>(), a.k, first, end, group_sums);
      if constexpr (is_nested(kType))
        nested_rows<kType>(rows, t, sums, e, a.k, b, first, end, c, ldc, a.tuning.fetch_bytes,
                           std::make_integer_sequence<int, kFew>());
      else
        group_rows<kOneZero, kType, kType, 1>(
            rows, t, sums, e, a.k, b, first, end, c, ldc,
            b + words_at(e, a.k, first) - (has_gammas(kType) ? 0 : head_bytes(e)) + a.tuning.fetch_bytes,
            sub_panel_bytes(e, a.k), std::make_integer_sequence<int, kFew>());
    }
  }

  // As panel_part does it: blocks of k that stay in L2, tiles of nearly equal height. Beside a block's first tile the
  // next panel is fetched, a line a step, and no more than that: what comes behind it would be fetched twice.
  void many_rows(int64_t m0, int64_t rows, const uint8_t* b, const uint8_t* next, float* c, int64_t ldc) {
    const Encoding wide = in_bytes(e);
    const int64_t groups = num_groups(e, a.k), tuned = ceil_div(a.tuning.block_steps * 4, e.group);
    const int64_t length = ceil_div(groups, ceil_div(groups, tuned < kMostGroups ? tuned : kMostGroups));
    const int64_t tiles = ceil_div(rows, kTileRows), height = rows / tiles, taller = rows % tiles;
    for (int64_t g = 0; g < groups; g += length) {
      const int64_t end = g + length < groups ? g + length : groups;
      for (int64_t t = 0, m = 0; t < tiles; t++) {
        const int64_t h = height + (t < taller), at = m0 + m;
        const TokenRows x_rows{(const int8_t*)a.x + at * x.source_stride, x.source_stride, sums(at),
                               x.source_stride / 4};
        const int64_t sub = sub_panel_bytes(wide, a.k), bytes = (end - g) * group_bytes(wide);
        const bool is_first = t == 0;
        group_rows<kOneZero, DType::kInt8Group, kBytes, kGroupVectors>(
            h, x_rows, sums_of_groups<kOneZero>(x_rows, h, wide, zero_of_dots<kBytes>(), a.k, g, end, group_sums), wide,
            a.k, b, g, end, c + m * ldc, ldc,
            is_first ? next + g * kFetched * group_bytes(wide) : b + g * group_bytes(wide) + kNear,
            is_first ? bytes * kFetched / kSubPanels : sub, std::make_integer_sequence<int, kTileRows>());
        m += h;
      }
    }
  }

  // Whole numbers, or sums of scaled groups -> numbers.
  ALBIREO_INLINE void scale_row(float* c, int64_t m, const float* scale, int32_t zero) {
    const float* of_row = sums(m);
    const V token = set1(of_row[-1]);
    if constexpr (kType == DType::kFp4) {
      for (int64_t j = 0; j < kPanel; j += 16) store(c + j, mul(mul(load(c + j), load(scale + j)), token));
    } else if constexpr (kIsGroup) {
      for (int64_t j = 0; j < kPanel; j += 16) store(c + j, mul(load(c + j), token));
    } else {
      const VI off = iset1(zero * (int32_t)of_row[num_sums(a.k) - 1]);
      for (int64_t j = 0; j < kPanel; j += 16)
        store(c + j, mul(mul(to_float(isub(iload((const int32_t*)(c + j)), off)), load(scale + j)), token));
    }
  }
};

}  // namespace
