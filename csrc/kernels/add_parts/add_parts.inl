// Body of add_parts for one ISA level; include after vec_<isa>.h.
#include "kernels/add_parts/add_parts.h"

namespace {
using namespace albireo;

ALBIREO_INLINE void dispatch_add_parts(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t blocks = ceil_div(a.k, kPartColumns), parts = a.num_heads, given = a.num_k_heads;
  for (int64_t item = begin; item < end; item++) {
    const int64_t row = item / blocks, first = item % blocks * kPartColumns;
    const int64_t last = first + kPartColumns < a.k ? first + kPartColumns : a.k;
    const float* x = (const float*)a.x + row * x_stride(a, parts * a.k);
    const float* y = (const float*)a.y + row * (a.y_stride ? a.y_stride : given * a.k);
    float* out = (float*)a.out + row * out_stride(a, parts * a.k);
    for (int64_t j = 0; j < parts; j++) {
      const float* coefs = a.gates ? a.gates + (row * parts + j) * given : nullptr;
      for (int64_t e = first; e < last; e += 16) {
        const int64_t n = last - e;
        const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
        V v = read(x + j * a.k + e);
        for (int64_t i = 0; i < given && j >= a.first_key; i++)
          v = fma(set1(a.scale + (coefs ? coefs[i] : 0.0f)), read(y + i * a.k + e), v);
        n >= 16 ? store(out + j * a.k + e, v) : store_n(out + j * a.k + e, v, n);
      }
    }
  }
}

}  // namespace
