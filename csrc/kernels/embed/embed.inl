// Body of embed for one ISA level.
#include "kernels/embed/embed.h"

namespace {

template <class T>
void gather_row(const Args& a, int64_t id, float* out) {
  const T* row = (const T*)a.weight + id * a.k;
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e;
    store_as(DType::kF32, out, e, n >= 16 ? load(row + e) : Activations<WeightF32>::load_narrow(row + e, n), n);
  }
}

// One column of a sub-panel: elements kStep at a time, a sub-panel's width apart.
template <class W>
void gather_column(const Args& a, int64_t id, float* out) {
  using B = typename W::B;
  const int64_t sub = panel_elements<W>(a.k) / kSubPanels, column = id % kSubPanel;
  const B* columns = (const B*)a.weight + id / kSubPanel * sub;  // sub-panels follow each other across panels
  alignas(64) B tmp[16];
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e < 16 ? a.k - e : 16;
    for (int64_t i = 0; i < n; i++) {
      const int64_t k = e + i;
      tmp[i] = columns[(k / W::kStep * kSubPanel + column) * W::kStep + k % W::kStep];
    }
    store_as(DType::kF32, out, e, Activations<WeightF32>::load_narrow(tmp, n), n);
  }
}

ALBIREO_INLINE void dispatch_embed(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  for (int64_t t = begin; t < end; t++) {
    float* out = (float*)a.out + t * out_stride(a, a.k);
    const int64_t id = step.token_ids[t];
    if (a.w_dtype == DType::kF32) a.packed ? gather_column<WeightF32>(a, id, out) : gather_row<float>(a, id, out);
    else if (a.w_dtype == DType::kF16) a.packed ? gather_column<WeightF16>(a, id, out) : gather_row<f16>(a, id, out);
    else a.packed ? gather_column<PairPolicy>(a, id, out) : gather_row<bf16>(a, id, out);
  }
}

}  // namespace
