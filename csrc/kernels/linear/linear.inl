// Body of linear for one ISA level; include after vec_<isa>.h, math.inl and gemm.inl.
#include <algorithm>

#include "kernels/linear/linear.h"
#include "kernels/adapter/low.inl"
#include "kernels/linear/tree.inl"

namespace {

template <bool kBias, bool kResidual>
ALBIREO_INLINE void finish_full(const Args& a, const float* c, int64_t m, int64_t rows, int64_t column) {
  const int64_t stride = out_stride(a, a.n);
  for (int64_t i = 0; i < rows; i++, c += kPanel)
#pragma GCC unroll 4
    for (int64_t j = 0; j < kPanel; j += 16) {
      const int64_t at = (m + i) * stride + column + j;
      V v = load(c + j);
      if constexpr (kBias) v = add(v, load(a.bias + column + j));
      if constexpr (kResidual) v = add(v, load(a.residual + at));
      store((float*)a.out + at, v);
    }
}

ALBIREO_INLINE void finish_plain(const Args& a, const float* c, int64_t m, int64_t rows, int64_t column) {
  if (a.out_dtype == DType::kF32 && column + kPanel <= a.n) {  // the same, with no question in the loop
    if (a.bias && a.residual) return finish_full<true, true>(a, c, m, rows, column);
    if (a.bias) return finish_full<true, false>(a, c, m, rows, column);
    if (a.residual) return finish_full<false, true>(a, c, m, rows, column);
    return finish_full<false, false>(a, c, m, rows, column);
  }
  for (int64_t i = 0; i < rows; i++, c += kPanel)
    for (int64_t j = 0; j < kPanel && column + j < a.n; j += 16) {
      const int64_t n = a.n - column - j, at = (m + i) * out_stride(a, a.n) + column + j;
      V v = load(c + j);
      if (a.bias) v = add(v, load(a.bias + column + j));
      if (a.residual) v = add(v, n >= 16 ? load(a.residual + at) : load_n(a.residual + at, n));
      store_as(a.out_dtype, a.out, at, v, n);
    }
}

// Each output through act, of linears without a residual.
template <class Act>
ALBIREO_INLINE void finish_mapped(const Args& a, const float* c, int64_t m, int64_t rows, int64_t column, Act act) {
  for (int64_t i = 0; i < rows; i++, c += kPanel)
    for (int64_t j = 0; j < kPanel && column + j < a.n; j += 16) {
      V v = load(c + j);
      if (a.bias) v = add(v, load(a.bias + column + j));
      store_as(a.out_dtype, a.out, (m + i) * out_stride(a, a.n) + column + j, act(v), a.n - column - j);
    }
}

// gate and up of 16 columns of one row -> act(gate, up)
template <class Act>
ALBIREO_INLINE V gated(const Args& a, const float* c, int64_t column, Act act) {
  V gate = load(c), up = load(c + kGateUpInterleave);
  if (a.bias) {
    gate = add(gate, load(a.bias + column));
    up = add(up, load(a.bias + column + kGateUpInterleave));
  }
  return act(gate, up);
}

template <class Act>
ALBIREO_INLINE void finish_gated(const Args& a, const float* c, int64_t m, int64_t rows, int64_t panel, Act act) {
  const int64_t column = panel * kGateUpInterleave, stride = out_stride(a, a.n);
  if (a.out_dtype == DType::kBF16 && column + kGateUpInterleave <= a.n) {  // the same, with no question in the loop
    for (int64_t i = 0; i < rows; i++, c += kPanel)
#pragma GCC unroll 2
      for (int64_t j = 0; j < kGateUpInterleave; j += 16)
        store((bf16*)a.out + (m + i) * stride + column + j, gated(a, c + j, panel * kPanel + j, act));
    return;
  }
  for (int64_t i = 0; i < rows; i++, c += kPanel)
    for (int64_t j = 0; j < kGateUpInterleave && column + j < a.n; j += 16)
      store_as(a.out_dtype, a.out, (m + i) * stride + column + j, gated(a, c + j, panel * kPanel + j, act),
               a.n - column - j);
}

// Sums of a panel of weights that have a gate, through whichever act it is.
ALBIREO_INLINE void finish_gate_up(const Args& a, const float* c, int64_t m, int64_t rows, int64_t panel) {
  if (a.act == 1) finish_gated(a, c, m, rows, panel, [](V gate, V up) { return mul(silu(gate), up); });
  else if (a.act == 2) finish_gated(a, c, m, rows, panel, [](V gate, V up) { return mul(gelu_tanh(gate), up); });
  else finish_gated(a, c, m, rows, panel, [](V gate, V up) { return clamped_swiglu(gate, up); });
}

// Rows of sums through act, into the panel's columns of out.
ALBIREO_INLINE void finish(const Args& a, const float* c, int64_t m, int64_t rows, int64_t panel) {
  if (is_gated(a.act)) finish_gate_up(a, c, m, rows, panel);
  else if (a.act == 3) finish_mapped(a, c, m, rows, panel * kPanel, [](V v) { return gelu(v); });
  else if (a.act == 4) finish_mapped(a, c, m, rows, panel * kPanel, [](V v) { return gelu_tanh(v); });
  else if (a.act == 5) finish_mapped(a, c, m, rows, panel * kPanel, [](V v) { return relu(v); });
  else finish_plain(a, c, m, rows, panel * kPanel);
}

// Panels first .. end of rows that are too deep for a core's cache: all of them over a part of k that fits, then over
// the next. c: [end - first][rows][kPanel].
inline void deep_product(Panels& weight, const Args& a, int64_t m0, int64_t rows, int64_t chunk, int64_t first,
                         int64_t end, float* c) {
  const int64_t steps = weight.steps(), most = weight.steps_at_once();
  for (int64_t s = 0; s < steps; s += most)
    for (int64_t panel = first; panel < end; panel++)
      for (int64_t m = 0; m < rows; m += chunk) {
        float* at = c + ((panel - first) * rows + m) * kPanel;
        const int64_t count = rows - m < chunk ? rows - m : chunk, n = steps - s < most ? steps - s : most;
        if (s == 0) weight.part(m0 + m, count, panel, s, n, at, kPanel);
        else weight.add_part(m0 + m, count, panel, s, n, at, kPanel);
      }
  for (int64_t m = 0; m < rows; m += chunk)
    for (int64_t panel = first; panel < end; panel++)
      finish(a, c + ((panel - first) * rows + m) * kPanel, m0 + m, rows - m < chunk ? rows - m : chunk, panel);
}

// Of so many rows, so that what is stored there need not wait for memory: lines that no row beside fetches along.
constexpr int64_t kFetchedRows = 16;

// What a panel of many rows will be stored to, while it is multiplied.
ALBIREO_INLINE void fetch_out(const Args& a, int64_t m, int64_t rows, int64_t panel) {
  const int64_t element = dtype_size(a.out_dtype), width = is_gated(a.act) ? kGateUpInterleave : kPanel;
  for (int64_t i = 0; i < rows; i++) {
    const char* row = (const char*)a.out + ((m + i) * out_stride(a, a.n) + panel * width) * element;
    for (int64_t byte = 0; byte < width * element; byte += 64) prefetch_l2(row + byte);
  }
}

inline void dispatch_linear(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch,
                            MakePanels make) {
  const int64_t M = count_rows(step, a.rows), panels = linear_panels(a);
  float* c = (float*)scratch.base;
  HeldPanels weight(make, a, scratch, (char*)(c + kDeepPanels * kDeepChunks * kMostChunk * kPanel));
  const Slabs slabs(M, a.tuning.slab_rows);
  const bool is_deep = weight->steps_at_once() > 0 && a.chunks <= 1 && !a.adapters && M > kDeepRows;
  for (int64_t item = begin; item < end; item++) {
    const int64_t panel = item % panels, slab = item / panels, m_end = slabs.end(slab);
    if (is_deep) {
      const int64_t count = std::min({kDeepPanels, end - item, panels - panel});
      for (int64_t m = slabs.begin(slab); m < m_end; m += kDeepChunks * slabs.chunk)
        deep_product(*weight, a, m, std::min(m_end - m, kDeepChunks * slabs.chunk), slabs.chunk, panel, panel + count,
                     c);
      item += count - 1;
      continue;
    }
    for (int64_t m = slabs.begin(slab); m < m_end; m += slabs.chunk) {
      const int64_t rows = m_end - m < slabs.chunk ? m_end - m : slabs.chunk;
      if (rows >= kFetchedRows) fetch_out(a, m, rows, panel);
      if (a.adapters) fetch_low(a, step, m, rows, panel);
      const auto add_adapters = [&](int64_t leaf, float* sums) {
        if (a.adapters) add_low(a, step, m, rows, panel, sums, kPanel, leaf);
      };
      if (a.chunks > 1) {
        tree_product(*weight, m, rows, panel, a.chunks, c, add_adapters);
      } else {
        weight->product(m, rows, panel, c, kPanel);
        add_adapters(0, c);
      }
      finish(a, c, m, rows, panel);
    }
  }
}

}  // namespace
