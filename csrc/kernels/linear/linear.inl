// Body of linear for one ISA level; include after vec_<isa>.h, math.inl and gemm.inl.
#include "kernels/linear/linear.h"

namespace {

ALBIREO_INLINE void finish_plain(const Args& a, const float* c, int64_t m, int64_t column) {
  for (int64_t j = 0; j < kPanel && column + j < a.n; j += 16) {
    const int64_t n = a.n - column - j, at = m * out_stride(a, a.n) + column + j;
    V v = load(c + j);
    if (a.bias) v = add(v, load(a.bias + column + j));
    if (a.residual) v = add(v, n >= 16 ? load(a.residual + at) : load_n(a.residual + at, n));
    store_as(a.out_dtype, a.out, at, v, n);
  }
}

ALBIREO_INLINE void finish_gated(const Args& a, const float* c, int64_t m, int64_t panel) {
  const int64_t column = panel * kGateUpInterleave;
  for (int64_t j = 0; j < kGateUpInterleave && column + j < a.n; j += 16) {
    V gate = load(c + j), up = load(c + kGateUpInterleave + j);
    if (a.bias) {
      gate = add(gate, load(a.bias + panel * kPanel + j));
      up = add(up, load(a.bias + panel * kPanel + kGateUpInterleave + j));
    }
    V v = mul(a.act == 1 ? silu(gate) : gelu_tanh(gate), up);
    store_as(a.out_dtype, a.out, m * out_stride(a, a.n) + column + j, v, a.n - column - j);
  }
}

template <class W>
void run_linear(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t M = count_rows(step, a.rows), panels = linear_panels(a), steps = ceil_div(a.k, W::kStep);
  const int64_t elements = panel_elements<W>(a.k);
  float* c = (float*)scratch.base;
  Activations<W> x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (typename W::A*)(c + kRowChunk * kPanel)};
  for (int64_t item = begin; item < end; item++) {
    const int64_t panel = item % panels, slab = item / panels, m_end = slab_end(slab, a.tuning.slab_rows, M);
    const typename W::B* b = (const typename W::B*)a.weight + panel * elements;
    for (int64_t m = slab_begin(slab, a.tuning.slab_rows); m < m_end; m += kRowChunk) {
      const int64_t rows = m_end - m < kRowChunk ? m_end - m : kRowChunk;
      panel_product<W>(x, m, rows, b, steps, c, kPanel, a.tuning);
      for (int64_t i = 0; i < rows; i++) {
        if (a.act == 0) finish_plain(a, c + i * kPanel, m + i, panel * kPanel);
        else finish_gated(a, c + i * kPanel, m + i, panel);
      }
    }
  }
}

ALBIREO_INLINE void dispatch_linear(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.w_dtype == DType::kF32) run_linear<WeightF32>(a, s, begin, end, scratch);
  else if (a.w_dtype == DType::kF16) run_linear<WeightF16>(a, s, begin, end, scratch);
  else run_linear<PairPolicy>(a, s, begin, end, scratch);
}

}  // namespace
