// Body of elementwise for one ISA level.
#include "kernels/elementwise/elementwise.h"

namespace {

template <class F>
ALBIREO_INLINE void map_row(const Args& a, int64_t i, F f) {
  const float *x = (const float*)a.x + i * x_stride(a, a.k), *y = (const float*)a.y + i * x_stride(a, a.k);
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e;
    const V v = n >= 16 ? load(x + e) : load_n(x + e, n);
    const V other = !a.y ? v : n >= 16 ? load(y + e) : load_n(y + e, n);
    store_as(a.out_dtype, a.out, i * out_stride(a, a.k) + e, f(v, other), n);
  }
}

ALBIREO_INLINE void dispatch_elementwise(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  for (int64_t i = begin; i < end; i++) switch ((Map)a.act) {
      case Map::kCast: map_row(a, i, [](V x, V) { return x; }); break;
      case Map::kSilu: map_row(a, i, [](V x, V) { return silu(x); }); break;
      case Map::kGeluTanh: map_row(a, i, [](V x, V) { return gelu_tanh(x); }); break;
      case Map::kAdd: map_row(a, i, [](V x, V y) { return add(x, y); }); break;
      case Map::kMul: map_row(a, i, [](V x, V y) { return mul(x, y); }); break;
    }
}

}  // namespace
