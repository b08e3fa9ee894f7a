// Body of rope for one ISA level; include after qkv_rope_kv.inl, which rotates heads in its tiles.
#include <cmath>

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
    const int64_t row = gathered_row(step, a.rows, a.gather, t);
    const float *x = (const float*)a.x + t * x_stride(a, width), *table = rope_row(a, step, row, a.k);
    float* out = (float*)a.out + t * out_stride(a, width);
    if (a.side_by_side) {
      for (int64_t h = 0; h < width; h += a.k) rotate_neighbours(x + h, a.k, table, out + h);
      continue;
    }
    const float* slope = (const float*)a.weight;
    const int32_t* positions = step.rope_positions ? step.rope_positions : step.positions;
    const float far = slope ? std::log((float)(positions[row] + a.first_key)) : 0;
    for (int64_t h = 0; h < a.num_heads; h++) {
      const V by = set1(slope ? slope[h] * far + a.bias[h] : 1);
      rotate_head(x + h * a.k, a.k, table, [&](int64_t e, V v, int64_t n) {
        store_as(DType::kF32, out + h * a.k, e, slope ? mul(v, by) : v, n);
      });
    }
  }
}

}  // namespace
