// Scores of rows of queries with a tile of keys; part of attention.inl and of choose_keys.inl.
#pragma once
#include "kernels/attention/tile.inl"

namespace {

// Functions around a register tile stay apart: the variables of a caller would take its registers.
#define ALBIREO_APART __attribute__((noinline))

constexpr int kLineBytes = 64;

// Rows of one work item that keys are multiplied with, in scratch.
template <class W>
struct ScoreRows {
  using A = typename W::A;
  int64_t rows, Dp;         // Dp: channels of keys, padded
  A* q = nullptr;           // [rows][Dp]
  float* scores = nullptr;  // [rows][kAttentionTile]
  float* fix = nullptr;     // [rows] the maximum of a row's scores; then the factor that out needs before the next tile
  bool has_maxima = false;  // of the scores of a tile, of which every row sees all: made where the scores are
};

// What dots with sub-panel j mean.
template <class W>
ALBIREO_INLINE V finished_score(const Tile<W>& t, V dots, int64_t j) {
  if constexpr (kIsWhole<W>) dots = from_whole(dots);  // q_scale is left to softmax_rows
  if constexpr (Tile<W>::kScaled) dots = mul(dots, load(t.scales.k + 16 * j));
  return dots;
}

template <class W, int MR, int NV>
ALBIREO_INLINE void score_tile(const ScoreRows<W>& r, const Tile<W>& t, int64_t row, int64_t j0) {
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) acc[i][j] = zero();
  const typename W::B* k[NV];
#pragma GCC unroll 8
  for (int j = 0; j < NV; j++) k[j] = t.k[j0 + j];
  const typename W::A* q = r.q + row * r.Dp;
  const int64_t steps = r.Dp / W::kStep;
  const char* ahead = (const char*)k[0];
  if constexpr (Tile<W>::kStreams)
    if (row == 0) ahead = (const char*)t.next_k[j0];
  for (int64_t s = paired_steps<W, MR, NV>(acc, q, r.Dp, k[0], 16 * W::kStep, steps, ahead); s < steps; s++) {
    if constexpr (Tile<W>::kStreams) {  // a step of so many sub-panels is a line
      constexpr int kInLine = NV > 1 ? kLineBytes / (16 * W::kStep * sizeof(typename W::B)) : 1;
      if (row == 0)
        for (int j = 0; j < NV; j += kInLine)
          prefetch_l2((const char*)(t.next_k[j0 + j + s % kInLine] + s / kInLine * kInLine * 16 * W::kStep));
    }
    W::template step<MR, NV>(acc, q + s * W::kStep, r.Dp, [&](int j) { return k[j] + s * 16 * W::kStep; });
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) acc[i][j] = finished_score(t, acc[i][j], j0 + j);
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) store(r.scores + (row + i) * kAttentionTile + 16 * (j0 + j), acc[i][j]);
  if constexpr (NV == 4) {
    if (r.has_maxima) {
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        const float most = hmax(max(max(acc[i][0], acc[i][1]), max(acc[i][2], acc[i][3])));
        r.fix[row + i] = j0 > 0 && r.fix[row + i] > most ? r.fix[row + i] : most;
      }
    }
  }
}

template <class W, int NV>
ALBIREO_APART void score_rows(const ScoreRows<W>& r, const Tile<W>& t, int64_t row, int64_t count, int64_t j0) {
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

// All rows with the first positions of a tile.
template <class W>
ALBIREO_INLINE void score_all(const ScoreRows<W>& r, const Tile<W>& t, int64_t positions) {
  const int64_t tiles = ceil_div(r.rows, kTileRows), height = r.rows / tiles, taller = r.rows % tiles;
  for (int64_t i = 0, row = 0; i < tiles; i++) {
    const int64_t h = height + (i < taller);
    for (int64_t j = 0; 16 * j < positions; j += kTileVectors) score_rows<W, kTileVectors>(r, t, row, h, j);
    row += h;
  }
}

// A head's channels as rows of queries have them: D of them at element `from` of source, zeros up to Dp. may_copy: they
// are of the type that rows are of.
template <class P>
ALBIREO_INLINE void take_query(typename P::A* q, int64_t D, int64_t Dp, Activations<P>& source, int64_t from,
                               bool may_copy) {
  if (D != Dp) memset(q, 0, Dp * sizeof(*q));
  if (may_copy && source.is_direct()) memcpy(q, (const char*)source.x + from * sizeof(*q), D * sizeof(*q));
  else source.fill(q, from);
  if (D % 16 != 0) memset(q + D, 0, (Dp - D) * sizeof(*q));
}

}  // namespace
