// Rows of a work item of attention, and what they sum of values; part of attention.inl.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/attention/scores.inl"

namespace {

// The running maximum before anything is seen: finite, so that no difference is NaN, and below every score.
constexpr float kNothingSeen = -1e30f;

ALBIREO_INLINE V load_up_to(const float* p, int64_t n) { return n >= 16 ? load(p) : load_n(p, n); }
ALBIREO_INLINE void store_up_to(float* p, V v, int64_t n) { n >= 16 ? store(p, v) : store_n(p, v, n); }

// Whether rows may not see the first positions of their sequences.
constexpr bool has_first(const Args& a) { return a.window > 0 || a.first_key > 0; }

constexpr int64_t value_width(const Args& a) { return a.value_dim ? a.value_dim : a.kv_shape.head_dim; }
constexpr int64_t result_width(const Args& a) { return a.result_dim ? a.result_dim : value_width(a); }
constexpr int64_t head_width(const Args& a) { return result_width(a) + (a.sums ? 2 : 0); }

template <class W>
struct Products;

// The rows of one work item and their state, in scratch.
template <class W>
struct RowBlock : ScoreRows<W> {
  using A = typename W::A;
  using ScoreRows<W>::rows, ScoreRows<W>::Dp, ScoreRows<W>::q, ScoreRows<W>::scores, ScoreRows<W>::fix;
  Products<W>& products;
  int64_t Wp;              // channels of values, padded
  int64_t Qp;              // of queries, padded to what products take at once
  A* p;                    // [rows][kAttentionTile]
  float* out;              // [rows][Wp] of the open segment, not yet divided by l
  float* total;            // [rows][Wp] of the closed segments
  float* lanes;            // [rows][16] partial sums of p of the open segment
  float* m;                // [rows] running maximum of the open segment
  float* total_m;          // [rows]
  float* total_l;          // [rows]
  float* q_scale;          // [rows] of whole numbers: what 1 of q means, times what scores are multiplied by
  float* p_scale;          // [rows] likewise of p, in this tile
  float* sink;             // [rows] of the row's head, where there are any, as m is
  float* slope;            // [rows] of the row's head, where there are any
  char* joined;            // K and V of a tile, when blocks are smaller than a sub-panel
  int64_t* first;          // [rows] position that each row sees first, where that may not be 0
  int64_t* last;           // [rows] and last
  int64_t* own;            // [rows] its own
  const float** near;      // [rows] what the row's head adds to its own position, and beside it to others
  const float** from_row;  // [rows] what the row adds, by columns
  const float** from_key;  // [rows] and position 0 of its sequence; others are key_stride apart
  float* distances;  // [heads] of that, each from the farthest before to the farthest behind, 15 more on both sides
  int64_t* out_at;   // [rows] element of a.out

  RowBlock(Products<W>& by, char* base, int64_t rows_, int64_t Dp_, int64_t Wp_, int64_t num_distances)
      : ScoreRows<W>{rows_, Dp_}, products(by), Wp(Wp_), Qp(round_up(Dp_, Products<W>::kDepth)) {
    auto take = [&base](int64_t bytes) {
      char* at = base;
      base += round_up(bytes, 64);
      return at;
    };
    q = (A*)take(rows * Qp * sizeof(A));
    scores = (float*)take(rows * kAttentionTile * 4);
    p = (A*)take(rows * kAttentionTile * sizeof(A));
    out = (float*)take(rows * Wp * 4);
    total = (float*)take(rows * Wp * 4);
    lanes = (float*)take(rows * 16 * 4);
    m = (float*)take(round_up(rows, 16) * 4);
    total_m = (float*)take(round_up(rows, 16) * 4);
    total_l = (float*)take(round_up(rows, 16) * 4);
    fix = (float*)take(round_up(rows, 16) * 4);
    q_scale = (float*)take(rows * 4);
    p_scale = (float*)take(rows * 4);
    sink = (float*)take(round_up(rows, 16) * 4);
    slope = (float*)take(rows * 4);
    first = (int64_t*)take(rows * 8);
    last = (int64_t*)take(rows * 8);
    own = (int64_t*)take(rows * 8);
    near = (const float**)take(rows * 8);
    from_row = (const float**)take(rows * 8);
    from_key = (const float**)take(rows * 8);
    distances = (float*)take(num_distances * 4);
    out_at = (int64_t*)take(rows * 8);
    joined = take(0);
  }

  // Some of the rows, as a block of their own.
  RowBlock part(int64_t begin, int64_t end) const {
    RowBlock r = *this;
    r.rows = end - begin;
    r.q += begin * Qp, r.out += begin * Wp, r.total += begin * Wp;
    r.scores += begin * kAttentionTile, r.p += begin * kAttentionTile, r.lanes += begin * 16;
    r.m += begin, r.total_m += begin, r.total_l += begin, r.fix += begin, r.out_at += begin;
    r.first += begin, r.last += begin, r.own += begin, r.near += begin;
    r.from_row += begin, r.from_key += begin;
    r.q_scale += begin, r.p_scale += begin, r.sink += begin, r.slope += begin;
    return r;
  }
};

// As paired_steps, of values.
template <class W, int MR, int NV>
ALBIREO_INLINE int64_t paired_values([[maybe_unused]] const RowBlock<W>& r, [[maybe_unused]] const Tile<W>& t,
                                     [[maybe_unused]] V (&acc)[MR][NV], [[maybe_unused]] const typename W::A* p,
                                     [[maybe_unused]] int64_t column, [[maybe_unused]] int64_t positions) {
#ifdef ALBIREO_HAVE_ROW_PAIRS
  if constexpr (kInRowPairs<W> && MR > 1 && NV == 1) {
    const int64_t twos = ceil_div(positions, W::kStep) / 2, in_sub = 16 / W::kStep / 2, next = r.Wp * W::kStep;
    RowPairs<MR> pairs(acc);
    for (int64_t j0 = 0; j0 * in_sub < twos; j0++) {
      const typename W::B* v = t.v[j0] + column * W::kStep;
      const int64_t left = twos - j0 * in_sub;
      for (int64_t s = 0; s < (left < in_sub ? left : in_sub); s++, v += 2 * next)
        pairs.add([&](int q) { return two_words(v, v + next, q); }, (const char*)(p + 16 * j0 + 2 * s * W::kStep),
                  kAttentionTile * (int64_t)sizeof(*p));
    }
    pairs.give(acc);
    return 2 * twos;
  }
#endif
  return 0;
}

template <class W, int MR, int NV>
ALBIREO_INLINE void value_tile(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t column, int64_t positions) {
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++) {
    const V fix = set1(r.fix[row + i]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++)
      acc[i][j] = kIsWhole<W> ? zero() : mul(load(r.out + (row + i) * r.Wp + column + 16 * j), fix);
  }
  const typename W::A* p = r.p + row * kAttentionTile;
  constexpr int64_t kSteps = 16 / W::kStep;
  const int64_t done = paired_values<W, MR, NV>(r, t, acc, p, column, positions);
  for (int64_t j0 = done / kSteps; j0 * 16 < positions; j0++) {
    const int64_t left = positions - 16 * j0, steps = ceil_div(left < 16 ? left : 16, W::kStep);
    const typename W::B* v = t.v[j0] + column * W::kStep;
    for (int64_t s = j0 == done / kSteps ? done % kSteps : 0; s < steps; s++) {
      if constexpr (Tile<W>::kStreams) {
        constexpr int kInLine = kLineBytes / (16 * W::kStep * sizeof(typename W::B));
        const typename W::B* next = t.next_v[j0] + column * W::kStep;
        if (row == 0)
          for (int j = 0; j < NV; j += kInLine) prefetch_l2((const char*)(next + (s * r.Wp + 16 * j) * W::kStep));
      }
      W::template step<MR, NV>(acc, p + 16 * j0 + s * W::kStep, kAttentionTile,
                               [&](int j) { return v + (s * r.Wp + 16 * j) * W::kStep; });
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) {
      float* out = r.out + (row + i) * r.Wp + column + 16 * j;
      if constexpr (kIsWhole<W>)
        acc[i][j] = fma(from_whole(acc[i][j]), set1(r.p_scale[row + i]), mul(load(out), set1(r.fix[row + i])));
      store(out, acc[i][j]);
    }
}

template <class W, int NV>
ALBIREO_APART void value_rows(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t count, int64_t column,
                              int64_t positions) {
  switch (count) {
    case 1: value_tile<W, 1, NV>(r, t, row, column, positions); break;
    case 2: value_tile<W, 2, NV>(r, t, row, column, positions); break;
    case 3: value_tile<W, 3, NV>(r, t, row, column, positions); break;
    case 4: value_tile<W, 4, NV>(r, t, row, column, positions); break;
    case 5:
      if constexpr (kTileRows >= 5) value_tile<W, 5, NV>(r, t, row, column, positions);
      break;
    case 6:
      if constexpr (kTileRows >= 6) value_tile<W, 6, NV>(r, t, row, column, positions);
      break;
  }
}

// All rows' sums over a tile of values.
template <class W>
ALBIREO_INLINE void value_all(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) {
  const int64_t tiles = ceil_div(r.rows, kTileRows), height = r.rows / tiles, taller = r.rows % tiles;
  for (int64_t i = 0, row = 0; i < tiles; i++) {
    const int64_t h = height + (i < taller);
    int64_t column = 0;
    for (; column + 16 * kTileVectors <= r.Wp; column += 16 * kTileVectors)
      value_rows<W, kTileVectors>(r, t, row, h, column, positions);
    for (; column < r.Wp; column += 16) {  // in halves: g++ 12 leaves 6 rows by one vector in memory
      value_rows<W, 1>(r, t, row, h - h / 2, column, positions);
      value_rows<W, 1>(r, t, row + h - h / 2, h / 2, column, positions);
    }
    row += h;
  }
}

// What multiplies rows by the keys and the values of a tile: here register tiles of vectors, which remember nothing.
//   kDepth        channels of a query that it takes at once
//   kMakesMaxima  whether scores() leaves the maxima of scores of which every row sees all
template <class W>
struct Products {
  static constexpr int64_t kDepth = 16;
  static constexpr bool kMakesMaxima = kTileVectors == 4;
  ALBIREO_INLINE void scores(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) { score_all(r, t, positions); }
  ALBIREO_INLINE void values(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) { value_all(r, t, positions); }
};

}  // namespace
