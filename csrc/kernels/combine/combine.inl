// Body of combine for one ISA level; include after vec_<isa>.h.
#include "kernels/combine/combine.h"

namespace {

ALBIREO_INLINE void dispatch_combine(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t blocks = ceil_div(a.n, kCombineColumns), stride = x_stride(a, a.n);
  for (int64_t item = begin; item < end; item++) {
    const int64_t t = item / blocks, first = item % blocks * kCombineColumns;
    const int64_t last = first + kCombineColumns < a.n ? first + kCombineColumns : a.n;
    const float *x = (const float*)a.x + t * a.top_k * stride, *weights = a.pair_weights + t * a.top_k;
    const int64_t to = t * out_stride(a, a.n);
    for (int64_t e = first; e < last; e += 16) {
      const int64_t n = last - e;
      const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
      V sum = mul(set1(weights[0]), read(x + e));
      for (int64_t j = 1; j < a.top_k; j++) sum = add(sum, mul(set1(weights[j]), read(x + j * stride + e)));
      if (a.residual) sum = add(sum, read(a.residual + to + e));
      n >= 16 ? store((float*)a.out + to + e, sum) : store_n((float*)a.out + to + e, sum, n);
    }
  }
}

}  // namespace
