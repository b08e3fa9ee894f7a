// Body of rope for one ISA level; include after qkv_rope_kv.inl, which rotates heads in its tiles.
#include "kernels/rope/rope.h"

namespace {

ALBIREO_INLINE void dispatch_rope(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  const int64_t width = a.num_heads * a.k;
  for (int64_t t = begin; t < end; t++) {
    float* out = (float*)a.out + t * out_stride(a, width);
    memcpy(out, (const float*)a.x + t * x_stride(a, width), width * sizeof(float));
    for (int64_t h = 0; h < a.num_heads; h++) rotate_head(out + h * a.k, a.k, a.rope + step.positions[t] * a.k);
  }
}

}  // namespace
