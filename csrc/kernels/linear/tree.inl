// C = x times a panel, with K summed as a binary tree instead of one chain, so that ranks that own subtrees give the
// bits that one rank gives. Include after gemm.inl.
#pragma once
#include "kernels/gemm/held_panels.inl"

namespace {

// x times a panel, summed as a binary tree over equal parts of K: a sum is formed when both its halves are there, so
// that few wait. Tiles of C lie kMostChunk * kPanel apart; the result is in the first. Weights in few bits are never
// cut among ranks, the compiler refuses it: they have no parts. with: told of the sum of each part, before it is added.
template <class With>
inline void tree_product(Panels& weight, int64_t m, int64_t rows, int64_t panel, int64_t chunks, float* c, With with) {
  const int64_t count = weight.steps() / chunks;
  float* next = c;
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    weight.part(m, rows, panel, chunk * count, count, next, kPanel);
    with(chunk, next);
    next += kMostChunk * kPanel;
    for (int64_t done = chunk + 1; done % 2 == 0; done /= 2) {
      next -= kMostChunk * kPanel;
      float* sum = next - kMostChunk * kPanel;
      for (int64_t e = 0; e < rows * kPanel; e += 16) store(sum + e, add(load(sum + e), load(next + e)));
    }
  }
}

}  // namespace
