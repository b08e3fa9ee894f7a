// What adapters add to a tile of a linear: (x A^T) B^T of each row that has one, before bias and all that follows.
// Include after gemm.inl. Called by linear.inl and qkv_rope_kv.inl; x A^T is what kernels/adapter wrote.
#pragma once
#include "albireo/adapter.h"

namespace {

// What one target adds to 16 columns of a row, b being the first of them.
ALBIREO_INLINE V low_sum(const float* low, const float* b, int64_t rank) {
  V sum = zero();
  for (int64_t q = 0; q < rank; q++) sum = fma(set1(low[q]), load(b + q * kPanel), sum);
  return sum;
}

// 64 columns of a row that are all of one target: the same sums, side by side.
ALBIREO_INLINE void add_low_panel(const float* low, const float* b, int64_t rank, float* c) {
  V s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  for (int64_t q = 0; q < rank; q++, b += kPanel) {
    const V x = set1(low[q]);
    s0 = fma(x, load(b), s0), s1 = fma(x, load(b + 16), s1);
    s2 = fma(x, load(b + 32), s2), s3 = fma(x, load(b + 48), s3);
  }
  store(c, add(load(c), s0)), store(c + 16, add(load(c + 16), s1));
  store(c + 32, add(load(c + 32), s2)), store(c + 48, add(load(c + 48), s3));
}

ALBIREO_INLINE void add_low_row(const Adapters& d, int64_t slot, int64_t panel, const float* low, float* c) {
  const float* b = d.b + (slot * d.panels + panel) * d.max_rank * kPanel;
  const int32_t* ranks = d.ranks + slot * d.targets;
  const int64_t at = merged_column(d, panel, 0);
  for (int64_t p = 0; p < d.targets && !d.gate_columns; p++)
    if (d.first[p] <= at && at + kPanel <= d.end[p]) {
      if (ranks[p] > 0) add_low_panel(low + p * d.max_rank, b, ranks[p], c);
      return;
    }
  for (int64_t j = 0; j < kPanel; j += 16) {
    const int64_t column = merged_column(d, panel, j);
    for (int64_t p = 0; p < d.targets; p++) {
      if (ranks[p] == 0 || column + 16 <= d.first[p] || column >= d.end[p]) continue;
      const V sum = low_sum(low + p * d.max_rank, b + j, ranks[p]);
      const V here = load(c + j);
      store(c + j, keep(add(here, sum), d.first[p] - column, d.end[p] - column, here));
    }
  }
}

ALBIREO_INLINE int64_t slot_of_row(const Args& a, const Step& s, int64_t row) {
  return s.adapter_slots[gathered_row(s, a.rows, Gather::kOfT, row)];
}

// Before the panel's own product, which takes longer than memory: what its rows will want of B. With many rows they
// find it in a cache anyway, all but the first of each adapter.
ALBIREO_INLINE void fetch_low(const Args& a, const Step& s, int64_t m, int64_t rows, int64_t panel) {
  const Adapters& d = *a.adapters;
  for (int64_t i = 0; i < rows && i < kFewRows; i++) {
    const int64_t slot = slot_of_row(a, s, m + i);
    if (slot < 0 || (i > 0 && slot == slot_of_row(a, s, m + i - 1))) continue;
    const char* b = (const char*)(d.b + (slot * d.panels + panel) * d.max_rank * kPanel);
    for (int64_t byte = 0; byte < d.max_rank * kPanel * 4; byte += 64) prefetch_l2(b + byte);
  }
}

// Rows m .. m + rows of one panel, in c, ldc floats apart. leaf: of which c is the sum.
ALBIREO_INLINE void add_low(const Args& a, const Step& s, int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc,
                            int64_t leaf = 0) {
  const Adapters& d = *a.adapters;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t slot = slot_of_row(a, s, m + i);
    const float* low = a.low + (m + i) * a.low_stride + leaf * d.targets * d.max_rank;
    if (slot >= 0) add_low_row(d, slot, panel, low, c + i * ldc);
  }
}

}  // namespace
