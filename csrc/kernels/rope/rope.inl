// Body of rope for one ISA level; include after qkv_rope_kv.inl, which rotates heads in its tiles.
#include "kernels/rope/rope.h"

namespace {

// As rotate_head, of channels 2i and 2i + 1.
ALBIREO_INLINE void rotate_neighbours(const float* head, int64_t d, const float* table, float* out) {
  const float *cos = table, *sin = table + d / 2;
  for (int64_t i = 0; i < d / 2; i++) {
    const float a = head[2 * i], b = head[2 * i + 1];
    out[2 * i] = a * cos[i] - b * sin[i];
    out[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

ALBIREO_INLINE void dispatch_rope(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  const int64_t width = a.num_heads * a.k;
  for (int64_t t = begin; t < end; t++) {
    const float *x = (const float*)a.x + t * x_stride(a, width),
                *table = rope_row(a, step, gathered_row(step, a.rows, a.gather, t), a.k);
    float* out = (float*)a.out + t * out_stride(a, width);
    for (int64_t h = 0; a.side_by_side && h < width; h += a.k) rotate_neighbours(x + h, a.k, table, out + h);
    for (int64_t h = 0; !a.side_by_side && h < width; h += a.k)
      rotate_head(x + h, a.k, table, [&](int64_t e, V v, int64_t n) { store_as(DType::kF32, out + h, e, v, n); });
  }
}

}  // namespace
