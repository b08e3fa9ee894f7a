// Body of norm for one ISA level.
#include "kernels/norm/norm.h"
#include "simd/tokens.inl"
#include "simd/rms.inl"

namespace {

ALBIREO_INLINE void dispatch_norm(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const bool is_token = a.out_dtype == DType::kInt8Token;
  for (int64_t i = begin; i < end; i++) {
    const float* x = (const float*)a.x + gathered_row(step, a.rows, a.gather, i) * x_stride(a, a.k);
    const float middle = a.centered ? mean_of(x, a.k) : 0.0f;
    const V factor = set1(a.centered ? deviation_factor(x, a.k, middle, a.eps) : rms_factor(x, a.k, a.eps));
    for (int64_t e = 0; e < a.k; e += 16) {
      const int64_t n = a.k - e;
      V v = n >= 16 ? load(x + e) : load_n(x + e, n);
      if (a.centered) v = sub(v, set1(middle));
      V y = mul(v, factor);
      if (a.weight) y = mul(y, load((const float*)a.weight + e));
      if (a.bias) y = add(y, load(a.bias + e));
      if (a.residual) {
        const float* r = a.residual + i * out_stride(a, a.k) + e;
        y = add(n >= 16 ? load(r) : load_n(r, n), y);
      }
      if (is_token) store((float*)scratch.base + e, y);
      else store_as(a.out_dtype, a.out, i * out_stride(a, a.k) + e, y, n);
    }
    if (is_token) store_token((const float*)scratch.base, a.k, (char*)a.out + i * a.out_stride);
  }
}

}  // namespace
