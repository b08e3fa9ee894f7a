// Body of route for one ISA level; include after vec_<isa>.h and math.inl.
#include "kernels/route/route.h"

namespace {

inline bool is_better(float a, float b) { return a > b || (a != a && b == b); }

// Ids of the best, in order: each is put behind those that it is not better than. They come ascending, so that of
// equals the lowest stays in front.
inline void choose(const float* x, int64_t count, int64_t top_k, int32_t* ids) {
  int64_t held = 0;
  for (int64_t e = 0; e < count; e++) {
    if (held == top_k && !is_better(x[e], x[ids[top_k - 1]])) continue;
    int64_t at = held < top_k ? held++ : top_k - 1;
    for (; at > 0 && is_better(x[e], x[ids[at - 1]]); at--) ids[at] = ids[at - 1];
    ids[at] = (int32_t)e;
  }
}

ALBIREO_INLINE void dispatch_route(const Args& a, const Step&, int64_t begin, int64_t end, Scratch& scratch) {
  float* powers = (float*)scratch.base;
  for (int64_t t = begin; t < end; t++) {
    const float* x = (const float*)a.x + t * x_stride(a, a.k);
    int32_t* ids = a.ids + t * a.top_k;
    float* weights = a.pair_weights + t * a.top_k;
    choose(x, a.k, a.top_k, ids);
    const V most = set1(x[ids[0]]);
    for (int64_t e = 0; e < a.k; e += 16) {
      const V v = a.k - e >= 16 ? load(x + e) : load_n(x + e, a.k - e);
      store(powers + e, exp2_v(mul(sub(v, most), set1(kLog2e))));
    }
    float sum = 0.0f;
    if (a.renormalize)
      for (int64_t j = 0; j < a.top_k; j++) sum += powers[ids[j]];
    else
      for (int64_t e = 0; e < a.k; e++) sum += powers[e];
    for (int64_t j = 0; j < a.top_k; j++) weights[j] = powers[ids[j]] / sum;
  }
}

}  // namespace
