// Body of adapter for one ISA level; include after vec_<isa>.h, math.inl and gemm.inl.
#include "albireo/tokens.h"
#include "kernels/adapter/adapter.h"

namespace {

// A leaf of row i of x as float32, zeros behind k. Codes stay whole numbers: their scale comes behind the sum.
ALBIREO_INLINE void widen_leaf(const Args& a, int64_t i, int64_t leaf, float* to) {
  const int64_t k = a.adapters->k, padded = a_stride(*a.adapters);
  const int64_t at = i * x_stride(a, a.adapters->leaves * k) + leaf * k;
  if (a.x_dtype == DType::kInt8Token) {
    const int8_t* codes = (const int8_t*)a.x + at;
    for (int64_t e = 0; e < k; e++) to[e] = (float)codes[e];
  } else if (a.x_dtype == DType::kF32) {
    const float* x = (const float*)a.x + at;
    for (int64_t e = 0; e < k; e++) to[e] = x[e];
  } else {
    for (int64_t e = 0; e < k; e += 16) {
      if (a.x_dtype == DType::kBF16)
        store(to + e, Activations<WeightF32>::load_narrow((const bf16*)a.x + at + e, k - e));
      else store(to + e, Activations<WeightF32>::load_narrow((const f16*)a.x + at + e, k - e));
    }
  }
  for (int64_t e = k; e < padded; e++) to[e] = 0.0f;
}

// Rows of one adapter at once: where a vector of 16 is more than one register their sums would go to memory and back.
constexpr int kTogether = kTileVectors > 1 ? kAdapterRows : 1;

// kRows rows of x, x_step apart in scratch, by kRankBlock rows of A. Sums do not depend on kRows.
template <int kRows>
ALBIREO_INLINE void dots(const float* x, int64_t x_step, const float* matrix, int64_t stride,
                         float (&out)[kRows][kRankBlock]) {
  V acc[kRows][kRankBlock];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 4
    for (int q = 0; q < kRankBlock; q++) acc[i][q] = zero();
  for (int64_t e = 0; e < stride; e += 16) {
    V rows[kRows];
#pragma GCC unroll 4
    for (int i = 0; i < kRows; i++) rows[i] = load(x + i * x_step + e);
#pragma GCC unroll 4
    for (int q = 0; q < kRankBlock; q++) {
      const V w = load(matrix + q * stride + e);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; i++) acc[i][q] = fma(rows[i], w, acc[i][q]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 4
    for (int q = 0; q < kRankBlock; q++) out[i][q] = sum(acc[i][q]);
}

// A leaf of rows that lie one behind the other in scratch from x on, of one adapter, by one block of its ranks.
template <int kRows>
ALBIREO_INLINE void low_rows(const Args& a, int64_t row, const float* x, int64_t slot, int64_t target, int64_t leaf,
                             int64_t q) {
  const Adapters& d = *a.adapters;
  const int64_t rank = d.ranks[slot * d.targets + target];
  if (q >= rank) return;
  float found[kRows][kRankBlock];
  const float* matrix = d.a + (((slot * d.targets + target) * d.leaves + leaf) * d.max_rank + q) * a_stride(d);
  dots<kRows>(x + leaf * a_stride(d), d.leaves * a_stride(d), matrix, a_stride(d), found);
  for (int i = 0; i < kRows; i++) {
    float* out = (float*)a.out + (row + i) * out_stride(a, low_width(d)) + (leaf * d.targets + target) * d.max_rank;
    float scale = 1.0f;
    if (a.x_dtype == DType::kInt8Token)
      scale = *(const float*)((const char*)a.x + (row + i) * a.x_stride + token_codes(d.k));
    for (int64_t j = 0; j < kRankBlock && q + j < rank; j++) out[q + j] = scale * found[i][j];
  }
}

ALBIREO_INLINE int64_t slot_of(const Args& a, const Step& s, int64_t row) {
  return s.adapter_slots[gathered_row(s, a.rows, Gather::kOfT, row)];
}

ALBIREO_INLINE void dispatch_adapter(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  const Adapters& d = *a.adapters;
  const int64_t M = count_rows(s, a.rows), parts = adapter_parts(d), blocks = ceil_div(d.max_rank, kRankBlock);
  const int64_t row_step = d.leaves * a_stride(d);
  float* x = (float*)scratch.base;
  for (int64_t item = begin; item < end; item++) {
    const int64_t first = item / parts * kAdapterRows, part = item % parts;
    const int64_t leaf = part / blocks / d.targets, target = part / blocks % d.targets;
    const int64_t q = part % blocks * kRankBlock;
    const int64_t rows = M - first < kAdapterRows ? M - first : kAdapterRows;
    int64_t slots[kAdapterRows];
    bool is_same = rows == kAdapterRows;
    for (int64_t i = 0; i < rows; i++) {
      slots[i] = slot_of(a, s, first + i);
      is_same &= slots[i] == slots[0];
    }
    if (scratch.held_row != first) {
      for (int64_t i = 0; i < rows; i++)
        for (int64_t l = 0; l < d.leaves && slots[i] >= 0; l++)
          widen_leaf(a, first + i, l, x + i * row_step + l * a_stride(d));
      scratch.held_row = first;
    }
    if (is_same && slots[0] >= 0) {
      for (int64_t i = 0; i < kAdapterRows; i += kTogether)
        low_rows<kTogether>(a, first + i, x + i * row_step, slots[0], target, leaf, q);
      continue;
    }
    for (int64_t i = 0; i < rows; i++)
      if (slots[i] >= 0) low_rows<1>(a, first + i, x + i * row_step, slots[i], target, leaf, q);
  }
}

}  // namespace
