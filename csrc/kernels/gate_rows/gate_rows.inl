// Body of gate_rows for one ISA level; include after vec_<isa>.h and math.inl.
#include "kernels/gate_rows/gate_rows.h"

namespace {

ALBIREO_INLINE void dispatch_gate_rows(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  const int64_t blocks = ceil_div(a.n, kGateColumns);
  for (int64_t item = begin; item < end; item++) {
    const int64_t t = item / blocks, first = item % blocks * kGateColumns;
    const int64_t last = first + kGateColumns < a.n ? first + kGateColumns : a.n;
    const int64_t from = t * x_stride(a, a.n), to = t * out_stride(a, a.n);
    for (int64_t part = first / a.k, e = first; e < last; part++) {
      const V gate = set1(((const float*)a.y)[t * (a.n / a.k) + part]);
      const V by = a.act ? softplus(gate) : div(set1(1.0f), add(set1(1.0f), exp2_v(mul(gate, set1(-kLog2e)))));
      const int64_t end = (part + 1) * a.k < last ? (part + 1) * a.k : last;
      for (int64_t n = end - e; n > 0; e += n < 16 ? n : 16, n = end - e) {
        const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
        V v = mul(by, read((const float*)a.x + from + e));
        if (a.residual) v = add(v, read(a.residual + to + e));
        n >= 16 ? store((float*)a.out + to + e, v) : store_n((float*)a.out + to + e, v, n);
      }
    }
  }
}

}  // namespace
