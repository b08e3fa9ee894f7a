// Body of head_top for one ISA level.
#include "kernels/head_top/head_top.h"

#include <cstring>

namespace {

ALBIREO_INLINE uint64_t top_key(float value, int64_t id) {
  uint32_t bits;
  value = value != value ? __builtin_nanf("") : value + 0.0f;  // one NaN; -0 equals 0
  memcpy(&bits, &value, 4);
  bits = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | (0xffffffffu - (uint32_t)id);
}

ALBIREO_INLINE uint64_t best_of(const float* c, int64_t n, int64_t column) {
  uint64_t best = 0;
  if (n == kPanel) {
    V most = load(c), odd = mul(most, zero());  // odd: NaN once a NaN or an infinity is met
    for (int64_t j = 16; j < kPanel; j += 16) {
      const V v = load(c + j);
      most = max(most, v);
      odd = fma(v, zero(), odd);
    }
    const float value = hmax(most);
    if (sum(odd) == 0.0f)
      for (int64_t j = 0; j < n; j++)
        if (c[j] == value) return top_key(value, column + j);
  }
  for (int64_t j = 0; j < n; j++) {  // a short panel, or one with a NaN
    const uint64_t key = top_key(c[j], column + j);
    best = key > best ? key : best;
  }
  return best;
}

ALBIREO_INLINE void merge(uint64_t* slot, uint64_t key) {
  uint64_t seen = __atomic_load_n(slot, __ATOMIC_RELAXED);
  while (key > seen && !__atomic_compare_exchange_n(slot, &seen, key, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

template <class W>
void run_head_top(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t M = count_rows(step, a.rows), panels = ceil_div(a.n, kPanel), steps = ceil_div(a.k, W::kStep);
  const int64_t elements = panel_elements<W>(a.k);
  float* c = (float*)scratch.base;
  Activations<W> x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (typename W::A*)(c + kRowChunk * kPanel)};
  for (int64_t item = begin; item < end; item++) {
    const int64_t panel = item % panels, slab = item / panels, m_end = slab_end(slab, M);
    const typename W::B* b = (const typename W::B*)a.weight + panel * elements;
    const int64_t column = panel * kPanel, n = a.n - column < kPanel ? a.n - column : kPanel;
    for (int64_t m = slab_begin(slab); m < m_end; m += kRowChunk) {
      const int64_t rows = m_end - m < kRowChunk ? m_end - m : kRowChunk;
      panel_product<W>(x, m, rows, b, steps, c, kPanel);
      for (int64_t i = 0; i < rows; i++) merge(a.top_keys + m + i, best_of(c + i * kPanel, n, column));
    }
  }
}

ALBIREO_INLINE void dispatch_head_top(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.w_dtype == DType::kF32) run_head_top<WeightF32>(a, s, begin, end, scratch);
  else if (a.w_dtype == DType::kF16) run_head_top<WeightF16>(a, s, begin, end, scratch);
  else run_head_top<PairPolicy>(a, s, begin, end, scratch);
}

}  // namespace
