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

// What all heads give some positions of a tile. weights: null: they are all 1.
template <class W>
ALBIREO_INLINE void sum_of_heads(const ScoreRows<W>& r, const float* weights, int64_t first, float* sums) {
  V sum[kSums];
#pragma GCC unroll 4
  for (int j = 0; j < kSums; j++) sum[j] = zero();
  for (int64_t h = 0; h < r.rows; h++)
#pragma GCC unroll 4
    for (int j = 0; j < kSums; j++)
      sum[j] = fma(set1(weights ? weights[h] : 1.0f), max(load(r.scores + h * kAttentionTile + first + 16 * j), zero()),
                   sum[j]);
#pragma GCC unroll 4
  for (int j = 0; j < kSums; j++) store(sums + 16 * j, sum[j]);
}

// Scores of all heads of a row with positions 0 .. count - 1, tile by tile: take(rows, the first position, how many).
template <class W, class F>
ALBIREO_INLINE void score_tiles(const Args& a, const Step& step, int64_t row, int64_t count, char* base, F take) {
  const int64_t H = a.num_heads, D = a.kv_shape.head_dim, Dp = a.kv_shape.padded_head_dim;
  ScoreRows<W> r{H, Dp};
  r.scores = (float*)base, base += H * kAttentionTile * sizeof(float);
  r.q = (typename W::A*)base, base += round_up(H * Dp * (int64_t)sizeof(*r.q), 64);
  Scratch unused{nullptr, 0};
  Activations<W> source{a.x, a.x_dtype, D, x_stride(a, H * D), unused, nullptr};
  for (int64_t h = 0; h < H; h++) take_query(r.q + h * Dp, D, Dp, source, row * source.source_stride + h * D, true);
  Tile<W> tile(a, table_of(step, sequence_of(step, row)), 0, base);
  for (int64_t start = 0; start < count; start += kAttentionTile) {
    const int64_t left = count - start;
    tile.locate(start, count);
    const int64_t positions = left < kAttentionTile ? left : kAttentionTile;
    score_all(r, tile, positions);
    take(r, start, positions);
  }
}

// What positions 0 .. count - 1 are worth to a row, and up to a tile's end whatever comes there.
template <class W>
void score_positions(const Args& a, const Step& step, int64_t row, int64_t count, float* sums, char* base) {
  const float* weights = a.gates ? a.gates + row * a.num_heads : nullptr;
  score_tiles<W>(a, step, row, count, base, [&](const ScoreRows<W>& r, int64_t start, int64_t) {
    for (int64_t j = 0; j < kAttentionTile; j += 16 * kSums) sum_of_heads(r, weights, j, sums + start + j);
  });
}

ALBIREO_INLINE float most_of(const float* numbers, int64_t count, float most) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const float of_some = hmax(load(numbers + i));
    most = of_some > most ? of_some : most;
  }
  for (; i < count; i++) most = numbers[i] > most ? numbers[i] : most;
  return most;
}

// What blocks of positions 0 .. count - 1 are worth to each head, whose numbers lie `stride` apart.
template <class W>
void score_blocks(const Args& a, const Step& step, int64_t row, int64_t count, float* worth, int64_t stride,
                  char* base) {
  for (int64_t i = 0; i < a.num_heads * stride; i++) worth[i] = -__builtin_inff();
  score_tiles<W>(a, step, row, count, base, [&](const ScoreRows<W>& r, int64_t start, int64_t positions) {
    for (int64_t h = 0; h < r.rows; h++)
      for (int64_t j = 0, n; j < positions; j += n) {
        const int64_t block = (start + j) / a.window, left = (block + 1) * a.window - start - j;
        n = left < positions - j ? left : positions - j;
        float& most = worth[h * stride + block];
        most = most_of(r.scores + h * kAttentionTile + j, n, most);
      }
  });
}

// The positions before `seen` of blocks in ascending order, and -1 behind them, n in all.
ALBIREO_INLINE void list_blocks(const int32_t* blocks, int64_t count, int64_t size, int64_t seen, int64_t n,
                                int32_t* to) {
  int64_t i = 0;
  for (int64_t j = 0; j < count; j++) {
    const int64_t first = blocks[j] * size, end = first + size < seen ? first + size : seen;
    for (int64_t s = first; s < end; s++) to[i++] = (int32_t)s;
  }
  while (i < n) to[i++] = -1;
}

template <class W>
void run_choose_blocks(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t most = ceil_div(a.num_keys, a.window), taken = a.n / a.window, H = a.num_heads;
  float* worth = (float*)scratch.base;
  int32_t* best = (int32_t*)(worth + H * most);
  for (int64_t row = begin; row < end; row++) {
    const int64_t seen = step.positions[row] + 1, blocks = ceil_div(seen, a.window);
    int32_t* places = a.ids + row * (a.y_stride ? a.y_stride : H * a.n);
    if (seen > a.n) score_blocks<W>(a, step, row, seen, worth, most, scratch.base + chosen_bytes(a));
    for (int64_t h = 0; h < H; h++, places += a.n) {
      if (seen <= a.n) {
        for (int64_t i = 0; i < a.n; i++) places[i] = i < seen ? (int32_t)i : -1;
        continue;
      }
      float* own = worth + h * most;
      for (int64_t i = 1; i <= a.first_key; i++) own[blocks - i] = __builtin_inff();
      places_of_best(own, blocks, taken, best);
      list_blocks(best, taken, a.window, seen, a.n, places);
    }
  }
}

// Entries in ascending order, count of them, become their positions, `every` each; behind them those from `first` on
// that are seen, and -1, n in all.
ALBIREO_INLINE void spell_entries(int32_t* places, int64_t count, int64_t every, int64_t first, int64_t seen,
                                  int64_t n) {
  for (int64_t j = count; j-- > 0;) {  // from behind: what is not read yet lies before what is written
    const int32_t entry = places[j];
    for (int64_t s = 0; s < every; s++) places[j * every + s] = (int32_t)(entry * every + s);
  }
  int64_t i = count * every;
  for (int64_t s = first; s < seen; s++) places[i++] = (int32_t)s;
  while (i < n) places[i++] = -1;
}

template <class W>
void run_choose_keys(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.window > 0) return run_choose_blocks<W>(a, step, begin, end, scratch);
  for (int64_t row = begin; row < end; row++) {
    int32_t* places = a.ids + row * (a.y_stride ? a.y_stride : a.n);
    const int64_t every = a.kv_shape.every, positions = step.positions[row] + 1, seen = positions / every;
    const int64_t taken = a.k > 1 ? (a.n - a.k + 1) / a.k : a.n, listed = a.k > 1 ? positions : seen;
    if (seen <= taken) {
      for (int64_t i = 0; i < a.n; i++) places[i] = i < listed ? (int32_t)i : -1;
      continue;
    }
    float* sums = (float*)scratch.base;
    score_positions<W>(a, step, row, seen, sums, scratch.base + chosen_bytes(a));
    places_of_best(sums, seen, taken, places);
    if (a.k > 1) spell_entries(places, taken, a.k, seen * every, positions, a.n);
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
