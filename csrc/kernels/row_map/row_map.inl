// Body of row_map for one ISA level; include after simd/rms.inl.
#include "kernels/row_map/row_map.h"

namespace {
using namespace albireo;

// mean(x^2): summed as rms_factor() does.
ALBIREO_INLINE float mean_square(const float* x, int64_t n) {
  V acc = zero();
  for (int64_t e = 0; e < n; e += 16) {
    const V v = n - e >= 16 ? load(x + e) : load_n(x + e, n - e);
    acc = fma(v, v, acc);
  }
  return sum(acc) / (float)n;
}

template <class F>
ALBIREO_INLINE void each_of_row(const float* x, float* out, int64_t n, F f) {
  for (int64_t e = 0; e < n; e += 16) {
    if (n - e >= 16) store(out + e, f(load(x + e)));
    else store_n(out + e, f(load_n(x + e, n - e)), n - e);
  }
}

ALBIREO_INLINE void dispatch_row_map(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  for (int64_t i = begin; i < end; i++) {
    const float* x = (const float*)a.x + i * x_stride(a, a.k);
    float* out = (float*)a.out + i * out_stride(a, a.k);
    switch ((RowMap)a.act) {
      case RowMap::kMatchLength: {
        const float* y = (const float*)a.y + i * (a.y_stride ? a.y_stride : a.k);
        const float own = mean_square(x, a.k), wanted = mean_square(y, a.k);
        const V by = set1(__builtin_sqrtf(wanted) / __builtin_sqrtf(own > a.scale ? own : a.scale));
        each_of_row(x, out, a.k, [by](V v) { return mul(v, by); });
        break;
      }
      case RowMap::kCut: {
        const float mean = mean_of(x, a.k);
        const V cut = set1(mean + a.scale / deviation_factor(x, a.k, mean, 0.0f));
        each_of_row(x, out, a.k, [cut](V v) { return max(zero(), sub(v, cut)); });
        break;
      }
    }
  }
}

}  // namespace
