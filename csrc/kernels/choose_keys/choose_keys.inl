// Body of choose_keys for one ISA level.
#include "kernels/attention/scores.inl"
#include "kernels/choose_keys/best.h"
#include "kernels/choose_keys/choose_keys.h"

namespace {

int64_t sequence_of(const Step& s, int64_t row) {
  int64_t low = 0, high = s.B;  // query_start[low] <= row < query_start[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (s.query_start[middle] <= row ? low : high) = middle;
  }
  return low;
}

constexpr int kSums = kTileVectors < 4 ? 2 : 4;  // that stay in registers

// What all heads give some positions of a tile.
template <class W>
ALBIREO_INLINE void sum_of_heads(const ScoreRows<W>& r, const float* weights, int64_t first, float* sums) {
  V sum[kSums];
#pragma GCC unroll 4
  for (int j = 0; j < kSums; j++) sum[j] = zero();
  for (int64_t h = 0; h < r.rows; h++)
#pragma GCC unroll 4
    for (int j = 0; j < kSums; j++)
      sum[j] = fma(set1(weights[h]), max(load(r.scores + h * kAttentionTile + first + 16 * j), zero()), sum[j]);
#pragma GCC unroll 4
  for (int j = 0; j < kSums; j++) store(sums + 16 * j, sum[j]);
}

// Scores of a row with positions 0 .. count - 1, and up to a tile's end whatever comes there.
template <class W>
void score_positions(const Args& a, const Step& step, int64_t row, int64_t count, float* sums, char* base) {
  const int64_t H = a.num_heads, D = a.kv_shape.head_dim, Dp = a.kv_shape.padded_head_dim;
  ScoreRows<W> r{H, Dp};
  r.scores = (float*)base, base += H * kAttentionTile * sizeof(float);
  r.q = (typename W::A*)base, base += round_up(H * Dp * (int64_t)sizeof(*r.q), 64);
  Scratch unused{nullptr, 0};
  Activations<W> source{a.x, a.x_dtype, D, x_stride(a, H * D), unused, nullptr};
  for (int64_t h = 0; h < H; h++) take_query(r.q + h * Dp, D, Dp, source, row * source.source_stride + h * D, true);
  const float* weights = a.gates + row * H;
  Tile<W> tile(a, table_of(step, sequence_of(step, row)), 0, base);
  for (int64_t start = 0; start < count; start += kAttentionTile) {
    const int64_t left = count - start;
    tile.locate(start, count);
    score_all(r, tile, left < kAttentionTile ? left : kAttentionTile);
    for (int64_t j = 0; j < kAttentionTile; j += 16 * kSums) sum_of_heads(r, weights, j, sums + start + j);
  }
}

template <class W>
void run_choose_keys(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  for (int64_t row = begin; row < end; row++) {
    int32_t* places = a.ids + row * (a.y_stride ? a.y_stride : a.n);
    const int64_t seen = step.positions[row] + 1;
    if (seen <= a.n) {
      for (int64_t i = 0; i < a.n; i++) places[i] = i < seen ? (int32_t)i : -1;
      continue;
    }
    float* sums = (float*)scratch.base;
    score_positions<W>(a, step, row, seen, sums, scratch.base + round_up(a.num_keys, kAttentionTile) * sizeof(float));
    places_of_best(sums, seen, a.n, places);
  }
}

ALBIREO_INLINE void dispatch_choose_keys(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  const DType kept = a.kv_shape.dtype;
  if (kept == DType::kF32) run_choose_keys<WeightF32>(a, s, begin, end, scratch);
  else if (kept == DType::kF16) run_choose_keys<WeightF16>(a, s, begin, end, scratch);
  else if (a.x_dtype == DType::kBF16) run_choose_keys<PairPolicy>(a, s, begin, end, scratch);
  else run_choose_keys<UnroundedPairs>(a, s, begin, end, scratch);
}

}  // namespace
