// Elementary functions on the vector vocabulary: one polynomial for every ISA level, no libm.
// Include after a vec_<isa>.h.
namespace {

// 2^t for t <= 126; below -126 the result is 2^-126 (callers clamp or do not care). Taylor of degree 6 on
// [-1/2, 1/2]: relative error below 2e-7.
ALBIREO_INLINE V exp2_v(V t) {
  t = min(max(t, set1(-126.0f)), set1(126.0f));
  V n = round_even(t);
  V f = sub(t, n);
  V p = set1(1.5403530e-4f);
  p = fma(p, f, set1(1.3333558e-3f));
  p = fma(p, f, set1(9.6181291e-3f));
  p = fma(p, f, set1(5.5504109e-2f));
  p = fma(p, f, set1(2.4022651e-1f));
  p = fma(p, f, set1(6.9314718e-1f));
  p = fma(p, f, set1(1.0f));
  return scale2(p, n);
}

constexpr float kLog2e = 1.44269504f;

// NaN in x comes out as NaN: the last product keeps it.
ALBIREO_INLINE V silu(V x) { return div(x, add(set1(1.0f), exp2_v(mul(x, set1(-kLog2e))))); }

ALBIREO_INLINE V tanh_v(V x) {  // 1 - 2 / (e^(2x) + 1)
  return sub(set1(1.0f), div(set1(2.0f), add(exp2_v(mul(x, set1(2 * kLog2e))), set1(1.0f))));
}

ALBIREO_INLINE V gelu_tanh(V x) {
  V cube = mul(mul(x, x), x);
  V inner = mul(fma(cube, set1(0.044715f), x), set1(0.79788456f));
  return mul(mul(x, set1(0.5f)), add(set1(1.0f), tanh_v(inner)));
}

}  // namespace
