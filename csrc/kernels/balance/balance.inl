// Body of balance for one ISA level; include after math.inl.
#include "kernels/balance/balance.h"

namespace {
using namespace albireo;

// m [n][n], divided by the sums of numbers that lie `step` apart, n of them from each multiple of `next` on, plus eps.
inline void divide_by_sums(float* m, int64_t n, int64_t next, int64_t step, float eps) {
  for (int64_t i = 0; i < n; i++) {
    float* of_line = m + i * next;
    float whole = 0.0f;
    for (int64_t j = 0; j < n; j++) whole += of_line[j * step];
    const float by = 1.0f / (whole + eps);
    for (int64_t j = 0; j < n; j++) of_line[j * step] *= by;
  }
}

// The softmax of each column, plus eps.
ALBIREO_INLINE void soften(float* m, int64_t n, float eps) {
  for (int64_t j = 0; j < n; j++) {
    float most = m[j];
    for (int64_t i = 1; i < n; i++) most = m[i * n + j] > most ? m[i * n + j] : most;
    for (int64_t i = 0; i < n; i++) m[i * n + j] -= most;
  }
  for (int64_t e = 0; e < n * n; e += 16) store(m + e, exp2_v(mul(load(m + e), set1(kLog2e))));
  divide_by_sums(m, n, 1, n, 0.0f);
  for (int64_t e = 0; e < n * n; e++) m[e] += eps;
}

ALBIREO_INLINE void dispatch_balance(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t n = a.k, count = n * n;
  float m[kMostStreams * kMostStreams] = {};  // whole vectors: behind the matrix there may be anything
  for (int64_t row = begin; row < end; row++) {
    const float* x = (const float*)a.x + row * x_stride(a, count);
    float* out = (float*)a.out + row * out_stride(a, count);
    for (int64_t e = 0; e < count; e++) m[e] = x[e];
    soften(m, n, a.eps);
    divide_by_sums(m, n, n, 1, a.eps);
    for (int64_t round = 1; round < a.num_heads; round++) {
      divide_by_sums(m, n, 1, n, a.eps);
      divide_by_sums(m, n, n, 1, a.eps);
    }
    for (int64_t e = 0; e < count; e++) out[e] = m[e];
  }
}

}  // namespace
