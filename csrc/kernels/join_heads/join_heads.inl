// Body of join_heads for one ISA level; include after gemm.inl.
#include "kernels/join_heads/join_heads.h"

namespace {

ALBIREO_INLINE void dispatch_join_heads(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const auto put = [&a](const float* from, int64_t count, int64_t at) {
    for (int64_t e = 0; e < count; e += 16)
      store_as(a.out_dtype, a.out, at + e, count - e >= 16 ? load(from + e) : load_n(from + e, count - e), count - e);
  };
  for (int64_t i = begin; i < end; i++) {
    const float* x = (const float*)a.x + i * x_stride(a, a.num_heads * a.k);
    const float* y = (const float*)a.y + i * (a.y_stride ? a.y_stride : a.num_heads * a.n);
    int64_t at = i * out_stride(a, a.num_heads * (a.k + a.n));
    for (int64_t h = 0; h < a.num_heads; h++, at += a.k + a.n) {
      put(x + h * a.k, a.k, at);
      put(y + h * a.n, a.n, at + a.k);
    }
  }
}

}  // namespace
