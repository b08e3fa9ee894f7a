// Body of head_norm for one ISA level; include after qkv_rope_kv.inl, which norms heads in its tiles.
#include "kernels/head_norm/head_norm.h"

namespace {

ALBIREO_INLINE void dispatch_head_norm(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t width = a.num_heads * a.k, step = a.n > a.k ? a.k : 0;
  const float* weight = (const float*)a.weight;
  for (int64_t i = begin; i < end; i++) {
    float* out = (float*)a.out + i * out_stride(a, width);
    memcpy(out, (const float*)a.x + i * x_stride(a, width), width * sizeof(float));
    for (int64_t h = 0; h < a.num_heads; h++)
      normalize_head(out + h * a.k, a.k, weight ? weight + h * step : nullptr, a.eps);
  }
}

}  // namespace
