// From scores of a tile to probabilities: what is added to scores, and their exponentials; part of attention.inl.
#pragma once
#include "kernels/attention/rows.inl"

namespace {

// A tile's numbers, none negative, as whole ones. Returns what 1 means: NaN when one is no number, 0 when all are too
// small.
ALBIREO_INLINE float put_whole(int16_t* p, V (&e)[kAttentionSubs], bool is_finite) {
  V most = e[0], all = e[0];
#pragma GCC unroll 8
  for (int j = 1; j < kAttentionSubs; j++) most = max(most, e[j]), all = add(all, e[j]);
  const float largest = hmax(most), bad = is_finite ? 0.0f : sum(mul(all, zero()));
  if (bad != 0.0f || largest < 0x1p-110f) {
    for (int64_t i = 0; i < kAttentionTile; i += 16) store(p + i, zero());
    return bad;
  }
  const V factor = set1(32767.0f / largest);
#pragma GCC unroll 8
  for (int j = 0; j < kAttentionSubs; j += 2) store_two(p + 16 * j, mul(e[j], factor), mul(e[j + 1], factor));
  return largest * (1.0f / 32767.0f);
}

// What of a tile a row sees: positions low .. high - 1, counted from the tile's start.
struct Seen {
  int64_t low, high;
  bool all() const { return low <= 0 && high >= kAttentionTile; }
};

template <class W>
ALBIREO_INLINE Seen seen_by(const Args& a, const RowBlock<W>& r, int64_t row, int64_t start) {
  return {has_first(a) ? r.first[row] - start : 0, r.last[row] + 1 - start};
}

template <bool kMasked>
ALBIREO_INLINE float row_maximum(const float* s, Seen seen) {
  V most;
#pragma GCC unroll 8
  for (int j = 0; j < kAttentionSubs; j++) {
    V x = load(s + 16 * j);
    if constexpr (kMasked) x = keep(x, seen.low - 16 * j, seen.high - 16 * j, set1(kNothingSeen));
    most = j > 0 ? max(most, x) : x;
  }
  return hmax(most);
}

// p = 2^(scale * s - m), positions not seen exactly 0; stored times the scales of V. Returns the 16 partial sums of p.
template <class W, bool kMasked>
ALBIREO_INLINE V row_probabilities(const RowBlock<W>& r, const Tile<W>& t, int64_t row, V scale, Seen seen, V lanes) {
  const float* s = r.scores + row * kAttentionTile;
  const V m = set1(-r.m[row]);
  V e[kAttentionSubs];
#pragma GCC unroll 8
  for (int j = 0; j < kAttentionSubs; j++) {
    const V power = fma(load(s + 16 * j), scale, m);
    e[j] = W::kToBF16 || kIsWhole<W> ? exp2_rough_below_126(power) : exp2_below_126(power);
    if constexpr (kMasked) e[j] = keep(e[j], seen.low - 16 * j, seen.high - 16 * j, zero());
    lanes = add(lanes, e[j]);
    if constexpr (Tile<W>::kScaled) {
      e[j] = mul(e[j], load(t.scales.v + 16 * j));
      // a scale that nobody wrote may be no number
      if constexpr (kMasked) e[j] = keep(e[j], seen.low - 16 * j, seen.high - 16 * j, zero());
    }
  }
  typename W::A* p = r.p + row * kAttentionTile;
  if constexpr (kIsWhole<W>) {
    r.p_scale[row] = put_whole(p, e, t.scales.is_finite);
  } else {
#pragma GCC unroll 4
    for (int j = 0; j < kAttentionSubs; j += 2) W::put_pair(p + 16 * j, e[j], e[j + 1]);
  }
  return lanes;
}

// scores = softcap * tanh(scale * scores / softcap), where nothing has scaled them yet
template <class W>
void cap_scores(const Args& a, RowBlock<W>& r) {
  for (int64_t i = 0; i < r.rows * kAttentionTile; i += 16) {
    const float own = kIsWhole<W> ? r.q_scale[i / kAttentionTile] : a.scale / a.softcap;
    const float scale = a.columns ? 1.0f / a.softcap : own;
    store(r.scores + i, mul(tanh_v(mul(load(r.scores + i), set1(scale))), set1(a.softcap)));
  }
}

// scores = scale * scores + what a row adds to a position by how far that is
template <class W>
void add_distances(const Args& a, RowBlock<W>& r, int64_t start) {
  const int64_t reach = a.num_distances / 2;
  for (int64_t row = 0; row < r.rows; row++) {
    const int64_t away = start - (r.first[row] + a.window - 1);
    const V scale = set1(kIsWhole<W> ? r.q_scale[row] : a.scale);
    for (int64_t j = 0; j < kAttentionTile; j += 16) {
      const int64_t at = away + j < -reach - 15 ? -reach - 15 : away + j > reach ? reach : away + j;
      float* s = r.scores + row * kAttentionTile + j;
      store(s, fma(load(s), scale, load(r.near[row] + at)));
    }
  }
}

// scores = scale * scores + what a row's head adds for every position between
template <class W>
void add_slopes(const Args& a, RowBlock<W>& r, int64_t start) {
  alignas(64) static constexpr float kPlaces[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int64_t row = 0; row < r.rows; row++) {
    const V scale = set1(kIsWhole<W> ? r.q_scale[row] : a.scale), slope = set1(r.slope[row]);
    for (int64_t j = 0; j < kAttentionTile; j += 16) {
      const V away = add(load(kPlaces), set1((float)(start + j - r.own[row])));
      float* s = r.scores + row * kAttentionTile + j;
      store(s, fma(load(s), scale, mul(slope, away)));
    }
  }
}

// scores = scale * (scores + what the row, and maybe the position, add by how far they are apart)
template <class W>
ALBIREO_APART void add_columns(const Args& a, RowBlock<W>& r, int64_t start) {
  for (int64_t row = 0; row < r.rows; row++) {
    alignas(64) float added[kAttentionTile] = {};
    const Seen seen = seen_by(a, r, row, start);
    const int64_t low = seen.low > 0 ? seen.low : 0, high = seen.high < kAttentionTile ? seen.high : kAttentionTile;
    const auto column = [&](int64_t j) {
      const int64_t away = r.own[row] - start - j;
      return a.columns[(away < -a.reach ? -a.reach : away > a.reach ? a.reach : away) + a.reach];
    };
    for (int64_t j = low; j < high; j++) added[j] = r.from_row[row][column(j)];
    for (int64_t j = low; a.from_keys && j < high; j++)
      added[j] += r.from_key[row][(start + j) * a.key_stride + column(j)];
    const V scale = set1(kIsWhole<W> ? r.q_scale[row] : a.scale), of_added = set1(a.scale);
    for (int64_t j = 0; j < kAttentionTile; j += 16) {
      float* s = r.scores + row * kAttentionTile + j;
      store(s, fma(load(s), scale, mul(load(added + j), of_added)));
    }
  }
}

// Whether what is added to scores has scaled them already.
constexpr bool has_scaled(const Args& a) { return a.softcap > 0 || a.distances || a.slopes || a.columns; }

// Scores to probabilities relative to the running maximum, in three passes: maxima row by row, then the new maximum and
// the correction of what was summed before for 16 rows at once, then exponentials. No branch depends on the data.
template <class W>
ALBIREO_INLINE void softmax_rows(const Args& a, RowBlock<W>& r, const Tile<W>& t, int64_t start) {
  if (a.columns) add_columns(a, r, start);
  if (a.softcap > 0) cap_scores(a, r);
  if (a.distances) add_distances(a, r, start);
  if (a.slopes) add_slopes(a, r, start);
  const bool is_scaled = has_scaled(a);
  const float to_log2 = is_scaled ? kLog2e : a.scale * kLog2e;  // positive, so it commutes with the maximum
  const bool is_of_row = kIsWhole<W> && !is_scaled;             // then it is in q_scale
  for (int64_t row = 0; row < r.rows && !r.has_maxima; row++) {
    const Seen seen = seen_by(a, r, row, start);
    const float* s = r.scores + row * kAttentionTile;
    r.fix[row] = seen.all() ? row_maximum<false>(s, seen) : row_maximum<true>(s, seen);
  }
  for (int64_t row = 0; row < r.rows; row += 16) {
    const int64_t n = r.rows - row < 16 ? r.rows - row : 16;
    const V before = load_up_to(r.m + row, n);
    const V by = is_of_row ? load_up_to(r.q_scale + row, n) : set1(to_log2);
    const V now = max(mul(load_up_to(r.fix + row, n), by), before);
    store_up_to(r.fix + row, exp2_below_126(sub(before, now)), n);
    store_up_to(r.m + row, now, n);
  }
  for (int64_t row = 0; row < r.rows; row++) {
    const Seen seen = seen_by(a, r, row, start);
    const V scale = set1(is_of_row ? r.q_scale[row] : to_log2);
    V lanes = mul(load(r.lanes + row * 16), set1(r.fix[row]));
    lanes = seen.all() ? row_probabilities<W, false>(r, t, row, scale, seen, lanes)
                       : row_probabilities<W, true>(r, t, row, scale, seen, lanes);
    store(r.lanes + row * 16, lanes);
  }
}

}  // namespace
