// Body of head_top for one ISA level.
#include "kernels/head_top/head_top.h"
#include "kernels/gemm/held_panels.inl"

#include <cstring>

namespace {

ALBIREO_INLINE uint64_t top_key(float value, int64_t id) {
  uint32_t bits;
  value = value != value ? __builtin_nanf("") : value + 0.0f;  // one NaN; -0 equals 0
  memcpy(&bits, &value, 4);
  bits = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | (0xffffffffu - (uint32_t)id);
}

// Whether one of a panel's values may be among the best of a list. A NaN may, and so may the zeros behind the last
// column.
ALBIREO_INLINE bool may_enter(const float* c, const TopList& list) {
  V most = load(c), odd = mul(most, zero());  // odd: NaN once a NaN or an infinity is met
  for (int64_t j = 16; j < kPanel; j += 16) {
    const V v = load(c + j);
    most = max(most, v);
    odd = fma(v, zero(), odd);
  }
  return !(hmax(most) < list.floor_value) || sum(odd) != 0.0f;
}

// The values of n columns, from column on, into a list that keeps the wanted best.
ALBIREO_INLINE void offer(TopList& list, int64_t wanted, const float* c, int64_t n, int64_t column) {
  if (!may_enter(c, list)) return;
  for (int64_t j = 0; j < n; j++) {
    if (c[j] < list.floor_value) continue;
    const uint64_t key = top_key(c[j], column + j);
    if (key <= list.floor) continue;
    if (wanted == 1) {
      list.keys[0] = list.floor = key, list.floor_value = c[j], list.count = 1;
    } else {
      list.keys[list.count++] = key;
      if (list.count == TopList::kRoom) list.shrink(wanted);
    }
  }
}

inline void dispatch_head_top(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch,
                              MakePanels make) {
  const int64_t M = count_rows(step, a.rows), panels = ceil_div(a.n, kPanel);
  float* c = (float*)scratch.base;
  HeldPanels weight(make, a, scratch, (char*)(c + kMostChunk * kPanel));
  const Slabs slabs(M, a.tuning.slab_rows);
  for (int64_t item = begin; item < end; item++) {
    const int64_t panel = item % panels, slab = item / panels, m_end = slabs.end(slab);
    const int64_t column = panel * kPanel, n = a.n - column < kPanel ? a.n - column : kPanel;
    for (int64_t m = slabs.begin(slab); m < m_end; m += slabs.chunk) {
      const int64_t rows = m_end - m < slabs.chunk ? m_end - m : slabs.chunk;
      weight->product(m, rows, panel, c, kPanel);
      if (a.softcap > 0)
        for (int64_t j = 0; j < rows * kPanel; j += 16) store(c + j, softcap(load(c + j), a.softcap));
      for (int64_t i = 0; i < rows; i++)
        offer(a.top->list(scratch.thread, m + i), step.top_counts[m + i], c + i * kPanel, n, column);
    }
  }
}

}  // namespace
