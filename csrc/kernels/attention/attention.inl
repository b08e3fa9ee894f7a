// Body of attention for one ISA level.
#include "kernels/attention/attention.h"

#include <cmath>
#include <cstring>

namespace {

// The running maximum before anything is seen: finite, so that no difference is NaN, and below every score.
constexpr float kNothingSeen = -1e30f;

// The rows of one work item and their state, in scratch.
template <class W>
struct RowBlock {
  using A = typename W::A;
  int64_t rows, Dp;
  A* q;               // [rows][Dp]
  float* scores;      // [rows][64]
  A* p;               // [rows][64]
  float* out;         // [rows][Dp] of the open segment, not yet divided by l
  float* total;       // [rows][Dp] of the closed segments
  float* lanes;       // [rows][16] partial sums of p of the open segment
  float* m;           // [rows] running maximum of the open segment
  float* total_m;     // [rows]
  float* total_l;     // [rows]
  float* fix;         // [rows] factor that out needs before the next tile is added
  char* joined;       // K and V of a tile, when blocks are smaller than a sub-panel
  int64_t* position;  // [rows]

  RowBlock(char* base, int64_t rows_, int64_t Dp_) : rows(rows_), Dp(Dp_) {
    auto take = [&base](int64_t bytes) {
      char* at = base;
      base += round_up(bytes, 64);
      return at;
    };
    q = (A*)take(rows * Dp * sizeof(A));
    scores = (float*)take(rows * kAttentionTile * 4);
    p = (A*)take(rows * kAttentionTile * sizeof(A));
    out = (float*)take(rows * Dp * 4);
    total = (float*)take(rows * Dp * 4);
    lanes = (float*)take(rows * 16 * 4);
    m = (float*)take(round_up(rows, 16) * 4);
    total_m = (float*)take(round_up(rows, 16) * 4);
    total_l = (float*)take(round_up(rows, 16) * 4);
    fix = (float*)take(round_up(rows, 16) * 4);
    position = (int64_t*)take(rows * 8);
    joined = take(0);
  }
};

// Pointers to the four 16-position sub-panels of K and V of one tile.
template <class W>
struct Tile {
  using B = typename W::B;
  const B* k[4];
  const B* v[4];
  const B* next_k[4];  // of the tile after it, to be fetched while this one is computed on
  const B* next_v[4];

  void locate(const Args& a, const int32_t* blocks, int64_t kv_head, int64_t start, int64_t stop, char* joined) {
    const KVShape& s = a.kv_shape;
    const int64_t S = sub_block(s), Dp = s.padded_head_dim, per_block = s.block_size / S;
    auto sub = [&](int64_t position) {
      const int64_t block = blocks[position / s.block_size];
      return a.kv + block * block_bytes(s) + kv_head * block_head_bytes(s) +
             position / S % per_block * sub_block_bytes(s);
    };
    for (int64_t j = 0; j < 4; j++) {
      const int64_t position = start + 16 * j;
      if (position >= stop) {  // wholly masked: any finite address will do
        k[j] = k[0], v[j] = v[0];
      } else if (S == 16) {
        k[j] = (const B*)sub(position);
        v[j] = k[j] + 16 * Dp;
      } else {
        join(sub(position), position + 8 < stop ? sub(position + 8) : nullptr, Dp, joined + j * 32 * Dp * sizeof(B));
        k[j] = (const B*)(joined + j * 32 * Dp * sizeof(B));
        v[j] = k[j] + 16 * Dp;
      }
    }
    for (int64_t j = 0; j < 4; j++) {
      const int64_t position = start + kAttentionTile + 16 * j;
      const bool exists = position < stop;
      next_k[j] = exists ? (const B*)sub(position) : k[j];
      next_v[j] = exists ? next_k[j] + S * Dp : v[j];
    }
  }

  // Two blocks of 8 positions side by side, as one sub-panel of 16.
  static void join(const char* first, const char* second, int64_t Dp, char* to) {
    const int64_t half = 8 * W::kStep * sizeof(B);  // 8 positions of one step of K
    for (int64_t d = 0; d < Dp / W::kStep; d++) {
      memcpy(to + 2 * d * half, first + d * half, half);
      if (second) memcpy(to + (2 * d + 1) * half, second + d * half, half);
      else memset(to + (2 * d + 1) * half, 0, half);
    }
    const int64_t bytes = 8 * Dp * sizeof(B);
    memcpy(to + 2 * bytes, first + bytes, bytes);
    if (second) memcpy(to + 3 * bytes, second + bytes, bytes);
    else memset(to + 3 * bytes, 0, bytes);
  }
};

template <class W, int MR, int NV>
ALBIREO_INLINE void score_tile(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t j0) {
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) acc[i][j] = zero();
  const typename W::B* k[NV];
#pragma GCC unroll 8
  for (int j = 0; j < NV; j++) k[j] = t.k[j0 + j];
  const typename W::A* q = r.q + row * r.Dp;
  for (int64_t s = 0; s < r.Dp / W::kStep; s++) {
    if (row == 0)
      for (int j = 0; j < NV; j++) prefetch_l2((const char*)(t.next_k[j0 + j] + s * 16 * W::kStep));
    W::template step<MR, NV>(acc, q + s * W::kStep, r.Dp, [&](int j) { return k[j] + s * 16 * W::kStep; });
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) store(r.scores + (row + i) * kAttentionTile + 16 * (j0 + j), acc[i][j]);
}

template <class W, int MR, int NV>
ALBIREO_INLINE void value_tile(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t column, int64_t positions) {
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++) {
    const V fix = set1(r.fix[row + i]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) acc[i][j] = mul(load(r.out + (row + i) * r.Dp + column + 16 * j), fix);
  }
  const typename W::A* p = r.p + row * kAttentionTile;
  for (int64_t j0 = 0; j0 * 16 < positions; j0++) {
    const int64_t left = positions - 16 * j0, steps = ceil_div(left < 16 ? left : 16, W::kStep);
    const typename W::B* v = t.v[j0] + column * W::kStep;
    const typename W::B* next = t.next_v[j0] + column * W::kStep;
    for (int64_t s = 0; s < steps; s++) {
      if (row == 0)
        for (int j = 0; j < NV; j++) prefetch_l2((const char*)(next + (s * r.Dp + 16 * j) * W::kStep));
      W::template step<MR, NV>(acc, p + 16 * j0 + s * W::kStep, kAttentionTile,
                               [&](int j) { return v + (s * r.Dp + 16 * j) * W::kStep; });
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) store(r.out + (row + i) * r.Dp + column + 16 * j, acc[i][j]);
}

template <class W, int NV>
void score_rows(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t count, int64_t j0) {
  switch (count) {
    case 1: score_tile<W, 1, NV>(r, t, row, j0); break;
    case 2: score_tile<W, 2, NV>(r, t, row, j0); break;
    case 3: score_tile<W, 3, NV>(r, t, row, j0); break;
    case 4: score_tile<W, 4, NV>(r, t, row, j0); break;
    case 5:
      if constexpr (kTileRows >= 5) score_tile<W, 5, NV>(r, t, row, j0);
      break;
    case 6:
      if constexpr (kTileRows >= 6) score_tile<W, 6, NV>(r, t, row, j0);
      break;
  }
}

template <class W, int NV>
void value_rows(const RowBlock<W>& r, const Tile<W>& t, int64_t row, int64_t count, int64_t column, int64_t positions) {
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

// What of a tile a row sees: positions low .. high - 1, counted from the tile's start.
struct Seen {
  int64_t low, high;
  bool all() const { return low <= 0 && high >= kAttentionTile; }
};

template <class W>
ALBIREO_INLINE Seen seen_by(const Args& a, const RowBlock<W>& r, int64_t row, int64_t start) {
  const int64_t high = r.position[row] + 1 - start;
  return {a.window > 0 ? high - a.window : 0, high};
}

template <bool kMasked>
ALBIREO_INLINE float row_maximum(const float* s, Seen seen) {
  V x[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    x[j] = load(s + 16 * j);
    if constexpr (kMasked) x[j] = keep(x[j], seen.low - 16 * j, seen.high - 16 * j, set1(kNothingSeen));
  }
  return hmax(max(max(x[0], x[1]), max(x[2], x[3])));
}

// p = 2^(scale * s - m), positions not seen exactly 0. Returns the 16 partial sums.
template <class W, bool kMasked>
ALBIREO_INLINE V row_probabilities(const float* s, typename W::A* p, V scale, V m, Seen seen, V lanes) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    V e = exp2_below_126(fma(load(s + 16 * j), scale, m));
    if constexpr (kMasked) e = keep(e, seen.low - 16 * j, seen.high - 16 * j, zero());
    lanes = add(lanes, e);
    W::put(p + 16 * j, e);
  }
  return lanes;
}

// scores = softcap * tanh(scale * scores / softcap)
template <class W>
void cap_scores(const Args& a, RowBlock<W>& r) {
  for (int64_t i = 0; i < r.rows * kAttentionTile; i += 16)
    store(r.scores + i, mul(tanh_v(mul(load(r.scores + i), set1(a.scale / a.softcap))), set1(a.softcap)));
}

// Scores to probabilities relative to the running maximum, in three passes: maxima row by row, then the new maximum and
// the correction of what was summed before for 16 rows at once, then exponentials. No branch depends on the data.
template <class W>
ALBIREO_INLINE void softmax_rows(const Args& a, RowBlock<W>& r, int64_t start) {
  if (a.softcap > 0) cap_scores(a, r);
  const float to_log2 = a.softcap > 0 ? kLog2e : a.scale * kLog2e;  // positive, so it commutes with the maximum
  for (int64_t row = 0; row < r.rows; row++) {
    const Seen seen = seen_by(a, r, row, start);
    const float* s = r.scores + row * kAttentionTile;
    r.fix[row] = seen.all() ? row_maximum<false>(s, seen) : row_maximum<true>(s, seen);
  }
  for (int64_t row = 0; row < r.rows; row += 16) {
    const V before = load(r.m + row), now = max(mul(load(r.fix + row), set1(to_log2)), before);
    store(r.fix + row, exp2_below_126(sub(before, now)));
    store(r.m + row, now);
  }
  const V scale = set1(to_log2);
  for (int64_t row = 0; row < r.rows; row++) {
    const Seen seen = seen_by(a, r, row, start);
    const float* s = r.scores + row * kAttentionTile;
    typename W::A* p = r.p + row * kAttentionTile;
    const V m = set1(-r.m[row]);
    V lanes = mul(load(r.lanes + row * 16), set1(r.fix[row]));
    lanes = seen.all() ? row_probabilities<W, false>(s, p, scale, m, seen, lanes)
                       : row_probabilities<W, true>(s, p, scale, m, seen, lanes);
    store(r.lanes + row * 16, lanes);
  }
}

// Adds the open segment to the whole and opens the next: always in ascending order of segments. A segment in which a
// row saw nothing has sums of zero, so its factor does not matter.
template <class W>
void close_segment(RowBlock<W>& r, bool is_first) {
  for (int64_t row = 0; row < r.rows; row++) {
    const float l = sum(load(r.lanes + row * 16)), m = r.m[row];
    float keep_total = 0.0f, keep_new = 1.0f;
    if (!is_first) {
      alignas(64) float tmp[16];
      const float most = m > r.total_m[row] ? m : r.total_m[row];
      store(tmp, exp2_below_126(set1(r.total_m[row] - most)));
      keep_total = tmp[0];
      store(tmp, exp2_below_126(set1(m - most)));
      keep_new = tmp[0];
      r.total_m[row] = most;
      r.total_l[row] = r.total_l[row] * keep_total + l * keep_new;
    } else {
      r.total_m[row] = m;
      r.total_l[row] = l;
    }
    for (int64_t e = 0; e < r.Dp; e += 16) {
      V v = mul(load(r.out + row * r.Dp + e), set1(keep_new));
      if (!is_first) v = fma(load(r.total + row * r.Dp + e), set1(keep_total), v);
      store(r.total + row * r.Dp + e, v);
      store(r.out + row * r.Dp + e, zero());
    }
    store(r.lanes + row * 16, zero());
    r.m[row] = kNothingSeen;
  }
}

template <class W>
void attend_tile(const Args& a, RowBlock<W>& r, const Tile<W>& t, int64_t start, int64_t stop) {
  const int64_t tiles = ceil_div(r.rows, kTileRows), height = r.rows / tiles, taller = r.rows % tiles;
  const int64_t positions = stop - start < kAttentionTile ? stop - start : kAttentionTile;
  for (int64_t i = 0, row = 0; i < tiles; i++) {
    const int64_t h = height + (i < taller);
    for (int64_t j = 0; j < 4; j += kTileVectors) score_rows<W, kTileVectors>(r, t, row, h, j);
    row += h;
  }
  softmax_rows(a, r, start);
  for (int64_t i = 0, row = 0; i < tiles; i++) {
    const int64_t h = height + (i < taller);
    int64_t column = 0;
    for (; column + 16 * kTileVectors <= r.Dp; column += 16 * kTileVectors)
      value_rows<W, kTileVectors>(r, t, row, h, column, positions);
    for (; column < r.Dp; column += 16) {  // in halves: g++ 12 leaves 6 rows by one vector in memory
      value_rows<W, 1>(r, t, row, h - h / 2, column, positions);
      value_rows<W, 1>(r, t, row + h - h / 2, h / 2, column, positions);
    }
    row += h;
  }
}

template <class W>
void load_queries(const Args& a, RowBlock<W>& r, int64_t query, int64_t first_row, int64_t group, int64_t kv_head,
                  const int32_t* positions, Scratch& scratch) {
  const int64_t D = a.kv_shape.head_dim;
  const int64_t stride = x_stride(a, a.num_heads * D);
  Activations<W> source{a.x, a.x_dtype, D, stride, scratch, nullptr};
  for (int64_t i = 0; i < r.rows; i++) {
    const int64_t token = query + (first_row + i) / group, head = kv_head * group + (first_row + i) % group;
    typename W::A* q = r.q + i * r.Dp;
    if (D != r.Dp) memset(q, 0, r.Dp * sizeof(*q));
    source.fill(q, token * stride + head * D);
    if (D % 16 != 0) memset(q + D, 0, (r.Dp - D) * sizeof(*q));
    r.position[i] = positions[token];
    r.m[i] = r.total_m[i] = kNothingSeen;
    r.total_l[i] = 0.0f;
    store(r.lanes + i * 16, zero());
    for (int64_t e = 0; e < r.Dp; e += 16) store(r.out + i * r.Dp + e, zero());
  }
}

template <class W>
void attend(const Args& a, const Step& step, int64_t b, int64_t kv_head, int64_t row_block, Scratch& scratch) {
  const int64_t group = a.num_heads / a.kv_shape.num_kv_heads, D = a.kv_shape.head_dim;
  const int64_t query = step.query_start[b], all_rows = (step.query_start[b + 1] - query) * group;
  const int64_t first_row = row_block * kAttentionRows;
  const int64_t rows = all_rows - first_row < kAttentionRows ? all_rows - first_row : kAttentionRows;
  RowBlock<W> r(scratch.base, rows, a.kv_shape.padded_head_dim);
  load_queries(a, r, query, first_row, group, kv_head, step.positions, scratch);

  const int32_t* blocks = step.block_table + b * step.max_blocks;
  const int64_t stop = r.position[rows - 1] + 1;  // rows are in order of position
  int64_t start = a.window > 0 && r.position[0] - a.window + 1 > 0 ? r.position[0] - a.window + 1 : 0;
  start -= start % kAttentionTile;
  bool is_first = true;
  Tile<W> tile;
  for (int64_t at = start; at < stop; at += kAttentionTile) {
    if (at != start && at % kAttentionSegment == 0) {
      close_segment(r, is_first);
      is_first = false;
    }
    tile.locate(a, blocks, kv_head, at, stop, r.joined);
    attend_tile(a, r, tile, at, stop);
  }
  close_segment(r, is_first);

  for (int64_t i = 0; i < rows; i++) {
    const int64_t token = query + (first_row + i) / group, head = kv_head * group + (first_row + i) % group;
    const V inverse = set1(1.0f / r.total_l[i]);
    for (int64_t e = 0; e < D; e += 16)
      store_as(a.out_dtype, a.out, token * out_stride(a, a.num_heads * D) + head * D + e,
               mul(load(r.total + i * r.Dp + e), inverse), D - e);
  }
}

template <class W>
void run_attention(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t K = a.kv_shape.num_kv_heads, group = a.num_heads / K;
  int64_t item = 0;
  for (int64_t b = 0; b < step.B && item < end; b++) {
    const int64_t blocks = attention_blocks((step.query_start[b + 1] - step.query_start[b]) * group);
    const int64_t first = begin > item ? begin - item : 0, last = end - item < blocks * K ? end - item : blocks * K;
    for (int64_t i = first; i < last; i++) attend<W>(a, step, b, i / blocks, i % blocks, scratch);
    item += blocks * K;
  }
}

ALBIREO_INLINE void dispatch_attention(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.kv_shape.dtype == DType::kF32) run_attention<WeightF32>(a, s, begin, end, scratch);
  else if (a.kv_shape.dtype == DType::kF16) run_attention<WeightF16>(a, s, begin, end, scratch);
  else run_attention<PairPolicy>(a, s, begin, end, scratch);
}

}  // namespace
