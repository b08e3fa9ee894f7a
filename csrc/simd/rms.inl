// Root-mean-square normalization of one row, shared by norm and qkv_rope_kv, and its mean, of norm alone. Include after
// a vec_<isa>.h.
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

// mean(x): as above.
ALBIREO_INLINE float mean_of(const float* x, int64_t n) {
  V acc = zero();
  int64_t e = 0;
  for (; e + 16 <= n; e += 16) acc = add(acc, load(x + e));
  if (e < n) acc = add(acc, load_n(x + e, n - e));
  return sum(acc) / (float)n;
}

// 1 / sqrt(mean((x - mean)^2) + eps): as above.
ALBIREO_INLINE float deviation_factor(const float* x, int64_t n, float mean, float eps) {
  V acc = zero();
  int64_t e = 0;
  for (; e + 16 <= n; e += 16) {
    V v = sub(load(x + e), set1(mean));
    acc = fma(v, v, acc);
  }
  if (e < n) {
    alignas(64) float tail[16];  // what is not there has no deviation
    store(tail, sub(load_n(x + e, n - e), set1(mean)));
    for (int64_t i = n - e; i < 16; i++) tail[i] = 0.0f;
    V v = load(tail);
    acc = fma(v, v, acc);
  }
  return 1.0f / __builtin_sqrtf(sum(acc) / (float)n + eps);
}

}  // namespace
