// Body of kv_write for one ISA level; include after qkv_rope_kv.inl, which writes heads from its tiles.
#include "kernels/kv_write/kv_write.h"

namespace {

ALBIREO_INLINE void dispatch_kv_write(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t K = a.kv_shape.num_kv_heads, D = a.kv_shape.head_dim, Dp = a.kv_shape.padded_head_dim;
  float* padded = (float*)scratch.base;
  for (int64_t t = begin; t < end; t++) {
    if ((step.positions[t] + 1) % a.kv_shape.every) continue;
    for (int64_t h = 0; h < (a.kv_shape.has_values ? 2 : 1) * K; h++) {
      const bool is_value = h >= K;
      const float* head = (const float*)(is_value ? a.y : a.x) + t * x_stride(a, K * D) + (is_value ? h - K : h) * D;
      if (D != Dp) {
        for (int64_t e = 0; e < Dp; e++) padded[e] = e < D ? head[e] : 0.0f;
        head = padded;
      }
      write_kv(a, step, t, is_value ? h - K : h, head, is_value);
    }
  }
}

}  // namespace
