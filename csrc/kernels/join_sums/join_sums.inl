// Body of join_sums for one ISA level; include after gemm.inl.
#include "kernels/join_sums/join_sums.h"

namespace {

// One head of a row. x, y: width numbers, the largest exponent, the sum.
ALBIREO_INLINE void join_head(const Args& a, const float* x, const float* y, float sink, int64_t at) {
  const int64_t width = a.k;
  alignas(64) float powers[16] = {x[width], y[width], sink * kLog2e};
  float most = powers[0] > powers[1] ? powers[0] : powers[1];
  most = most > powers[2] ? most : powers[2];
  store(powers, exp2_below_126(sub(load(powers), set1(most))));
  const float whole = x[width + 1] * powers[0] + y[width + 1] * powers[1] + powers[2];
  const V of_x = set1(powers[0] / whole), of_y = set1(powers[1] / whole);
  for (int64_t e = 0; e < width; e += 16) {
    const int64_t n = width - e;
    const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
    store_as(a.out_dtype, a.out, at + e, fma(of_x, read(x + e), mul(of_y, read(y + e))), n);
  }
}

ALBIREO_INLINE void dispatch_join_sums(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t H = a.num_heads, width = a.k + 2;
  for (int64_t i = begin; i < end; i++) {
    const float* x = (const float*)a.x + i * x_stride(a, H * width);
    const float* y = (const float*)a.y + i * (a.y_stride ? a.y_stride : H * width);
    for (int64_t h = 0; h < H; h++)
      join_head(a, x + h * width, y + h * width, a.sinks[h], i * out_stride(a, H * a.k) + h * a.k);
  }
}

}  // namespace
