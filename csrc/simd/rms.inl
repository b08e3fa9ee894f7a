// Root-mean-square normalization of one row, shared by norm and qkv_rope_kv. Include after a vec_<isa>.h.
#include <cmath>

namespace {

// 1 / sqrt(mean(x^2) + eps): 16 partial sums, ascending, added in a fixed tree.
ALBIREO_INLINE float rms_factor(const float* x, int64_t n, float eps) {
  V acc = zero();
  int64_t e = 0;
  for (; e + 16 <= n; e += 16) {
    V v = load(x + e);
    acc = fma(v, v, acc);
  }
  if (e < n) {
    V v = load_n(x + e, n - e);
    acc = fma(v, v, acc);
  }
  return 1.0f / __builtin_sqrtf(sum(acc) / (float)n + eps);
}

}  // namespace
