// C = x times a panel, with K summed as a binary tree instead of one chain, so that ranks that own subtrees give the
// bits that one rank gives. Include after gemm.inl.
#pragma once
#include "albireo/types.h"

namespace {

// panel_product of gemm.inl over `count` of the panel's steps, from `first` on.
template <class W>
void panel_part(Activations<W>& x, int64_t m0, int64_t rows, const typename W::B* panel, int64_t steps, int64_t first,
                int64_t count, float* c, int64_t ldc) {
  const int64_t sub = steps * kSubPanel * W::kStep;
#ifdef ALBIREO_TALL_ROWS
  if (rows <= kTallRows)
    return tall_product<W>(rows, x.interleaved(m0, rows) + first * rows * W::kStep,
                           panel + first * kSubPanel * W::kStep, sub, count, c, ldc,
                           std::make_integer_sequence<int, kTallRows>());
#endif
  const typename W::A* a = x.rows(m0, rows);
  const int64_t lda = x.stride(), tiles = ceil_div(rows, kTileRows), height = rows / tiles, taller = rows % tiles;
  const int64_t length = ceil_div(count, ceil_div(count, kStepsPerBlock)), end = first + count;
  for (int64_t s0 = first; s0 < end; s0 += length) {
    const int64_t n = end - s0 < length ? end - s0 : length;
    const typename W::B* b = panel + s0 * kSubPanel * W::kStep;
    const typename W::B* next = s0 + n < steps ? b + n * kSubPanel * W::kStep : panel + kSubPanels * sub;
    for (int64_t t = 0, m = 0; t < tiles; t++) {
      const int64_t h = height + (t < taller);
      wide_rows<W>(h, a + m * lda + s0 * W::kStep, lda, b, sub, n, c + m * ldc, ldc, s0 > first,
                   (const char*)(next + t % kSubPanels * sub));
      m += h;
    }
  }
}

// x times a panel, summed as a binary tree over equal parts of K: a sum is formed when both its halves are there, so
// that few wait. Tiles of C lie kRowChunk * kPanel apart; the result is in the first.
template <class W>
void tree_product(Activations<W>& x, int64_t m, int64_t rows, const typename W::B* b, int64_t steps, int64_t chunks,
                  float* c) {
  const int64_t count = steps / chunks;
  float* next = c;
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    panel_part<W>(x, m, rows, b, steps, chunk * count, count, next, kPanel);
    next += kRowChunk * kPanel;
    for (int64_t done = chunk + 1; done % 2 == 0; done /= 2) {
      next -= kRowChunk * kPanel;
      float* sum = next - kRowChunk * kPanel;
      for (int64_t e = 0; e < rows * kPanel; e += 16) store(sum + e, add(load(sum + e), load(next + e)));
    }
  }
}

}  // namespace
