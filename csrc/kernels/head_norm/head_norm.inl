// Body of head_norm for one ISA level; include after qkv_rope_kv.inl, which norms heads in its tiles.
#include "kernels/head_norm/head_norm.h"

namespace {

ALBIREO_INLINE void center_head(float* head, int64_t d) {
  V sums = zero();
  for (int64_t e = 0; e < d; e += 16) sums = add(sums, d - e >= 16 ? load(head + e) : load_n(head + e, d - e));
  const V mean = set1(sum(sums) / (float)d);
  for (int64_t e = 0; e < d; e += 16) {
    const int64_t n = d - e;
    store_as(DType::kF32, head, e, sub(n >= 16 ? load(head + e) : load_n(head + e, n), mean), n);
  }
}

ALBIREO_INLINE void dispatch_head_norm(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t width = a.num_heads * a.k, step = a.n > a.k ? a.k : 0;
  const float* weight = (const float*)a.weight;
  for (int64_t i = begin; i < end; i++) {
    float* out = (float*)a.out + i * out_stride(a, width);
    memcpy(out, (const float*)a.x + i * x_stride(a, width), width * sizeof(float));
    for (int64_t h = 0; h < a.num_heads; h++) {
      if (a.centered) center_head(out + h * a.k, a.k);
      normalize_head(out + h * a.k, a.k, weight ? weight + h * step : nullptr, a.eps);
    }
  }
}

}  // namespace
