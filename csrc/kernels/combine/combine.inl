// Body of combine for one ISA level; include after vec_<isa>.h.
#include "kernels/combine/combine.h"

namespace {

// What experts of a token that give back what they read count together.
inline float weight_given_back(const Args& a, int64_t t) {
  float sum = 0;
  for (int64_t p = t * a.top_k; p < (t + 1) * a.top_k; p++)
    if (a.ids[p] >= a.num_experts) sum += a.pair_weights[p];
  return sum;
}

ALBIREO_INLINE void dispatch_combine(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t blocks = ceil_div(a.n, kCombineColumns), stride = x_stride(a, a.n);
  for (int64_t item = begin; item < end; item++) {
    const int64_t t = item / blocks, first = item % blocks * kCombineColumns;
    const int64_t last = first + kCombineColumns < a.n ? first + kCombineColumns : a.n;
    const int64_t terms = a.ids ? 1 : a.top_k;
    const float *x = (const float*)a.x + t * terms * stride, *weights = a.pair_weights + t * a.top_k;
    const float first_weight = a.ids ? weight_given_back(a, t) : weights[0];
    const int64_t to = t * out_stride(a, a.n);
    for (int64_t e = first; e < last; e += 16) {
      const int64_t n = last - e;
      const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
      V sum = mul(set1(first_weight), read(x + e));
      for (int64_t j = 1; j < terms; j++) sum = add(sum, mul(set1(weights[j]), read(x + j * stride + e)));
      if (a.residual) sum = add(sum, read(a.residual + to + e));
      n >= 16 ? store((float*)a.out + to + e, sum) : store_n((float*)a.out + to + e, sum, n);
    }
  }
}

}  // namespace
