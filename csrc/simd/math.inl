// Elementary functions on the vector vocabulary: one polynomial for every ISA level, no libm.
// Include after a vec_<isa>.h.
namespace {

// 2^f for f in [-1/2, 1/2]: minimax of degree 5, relative error below 1.7e-7 in float32; exactly 1 at 0.
ALBIREO_INLINE V exp2_fraction(V f) {
  V p = set1(1.32647273e-3f);
  p = fma(p, f, set1(9.67151299e-3f));
  p = fma(p, f, set1(5.55073358e-2f));
  p = fma(p, f, set1(2.40222424e-1f));
  p = fma(p, f, set1(6.93147004e-1f));
  return fma(p, f, set1(1.0f));
}

// 2^t for t <= 126; below -126 the result is 2^-126. max and min give their second operand when one is NaN, so here and
// below a NaN comes out as NaN.
ALBIREO_INLINE V exp2_below_126(V t) {
  t = max(set1(-126.0f), t);
  V n = round_even(t), f = sub(t, n);
  return scale2(exp2_fraction(f), n);
}

// The same to 8.6e-5, for what is rounded to bf16 (3.9e-3) next; exactly 1 at 0, and 2^-126 or less below -126. Over
// the fraction above the whole number below, which takes a core with the instructions for it two fewer a vector.
ALBIREO_INLINE V exp2_rough_below_126(V t) {
  const V f = above_floor(t);
  V p = set1(7.70672411e-2f);
  p = fma(p, f, set1(2.27644980e-1f));
  p = fma(p, f, set1(6.95116630e-1f));
  return scale2_floor(fma(p, f, set1(1.0f)), t);
}

// 2^t with t held to [-126, 126].
ALBIREO_INLINE V exp2_v(V t) { return exp2_below_126(min(set1(126.0f), t)); }

constexpr float kLog2e = 1.44269504f;

// NaN in x comes out as NaN: the last product keeps it.
ALBIREO_INLINE V silu(V x) { return div(x, add(set1(1.0f), exp2_v(mul(x, set1(-kLog2e))))); }

// NaN in x comes out as NaN: exp2_v keeps it.
ALBIREO_INLINE V sigmoid(V x) { return div(set1(1.0f), add(set1(1.0f), exp2_v(mul(x, set1(-kLog2e))))); }

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), and log(1 + u) = 2 artanh(u / (2 + u)): seven terms, whose rest is below
// 2e-8 of the whole.
ALBIREO_INLINE V softplus(V x) {
  const V u = exp2_v(mul(max(x, sub(zero(), x)), set1(-kLog2e))), s = div(u, add(u, set1(2.0f))), t = mul(s, s);
  V p = set1(2.0f / 13);
  p = fma(p, t, set1(2.0f / 11));
  p = fma(p, t, set1(2.0f / 9));
  p = fma(p, t, set1(2.0f / 7));
  p = fma(p, t, set1(2.0f / 5));
  p = fma(p, t, set1(2.0f / 3));
  p = fma(p, t, set1(2.0f));
  return fma(p, s, max(zero(), x));
}

// (u + 1) g sigmoid(1.702 g) with g = min(gate, 7) and u = up, kept between -7 and 7. NaN comes out as NaN.
ALBIREO_INLINE V clamped_swiglu(V gate, V up) {
  const V limit = set1(7.0f), g = min(limit, gate), u = max(set1(-7.0f), min(limit, up));
  return mul(add(u, set1(1.0f)), div(g, add(set1(1.0f), exp2_v(mul(g, set1(-1.702f * kLog2e))))));
}

ALBIREO_INLINE V tanh_v(V x) {  // 1 - 2 / (e^(2x) + 1)
  return sub(set1(1.0f), div(set1(2.0f), add(exp2_v(mul(x, set1(2 * kLog2e))), set1(1.0f))));
}

// The same to a few roundings of the result however small x is; 1 beyond where float32 knows no better. Source: the
// rational approximation of Eigen's ptanh, degrees 13 and 6.
ALBIREO_INLINE V fine_tanh(V x) {
  x = max(set1(-7.99881172f), min(set1(7.99881172f), x));
  const V s = mul(x, x);
  V p = set1(-2.76076847742355e-16f);
  p = fma(p, s, set1(2.00018790482477e-13f));
  p = fma(p, s, set1(-8.60467152213735e-11f));
  p = fma(p, s, set1(5.12229709037114e-08f));
  p = fma(p, s, set1(1.48572235717979e-05f));
  p = fma(p, s, set1(6.37261928875436e-04f));
  p = fma(p, s, set1(4.89352455891786e-03f));
  V q = set1(1.19825839466702e-06f);
  q = fma(q, s, set1(1.18534705686654e-04f));
  q = fma(q, s, set1(2.26843463243900e-03f));
  q = fma(q, s, set1(4.89352518554385e-03f));
  return div(mul(x, p), q);
}

// cap * tanh(x / cap)
ALBIREO_INLINE V softcap(V x, float cap) { return mul(fine_tanh(mul(x, set1(1.0f / cap))), set1(cap)); }

// x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2, and erfc(z) = k e^(p(k) - z^2) with k = 1 / (1 + z / 2), to 6e-8
// of itself in exact arithmetic. p: least squares in the Chebyshev basis. Beyond 16 nothing of erfc is left.
ALBIREO_INLINE V gelu(V x) {
  const V size = min(set1(16.0f), max(x, sub(zero(), x))), z = mul(size, set1(0.707106781f));
  const V k = div(set1(1.0f), fma(z, set1(0.5f), set1(1.0f)));
  V p = set1(0.157751014f);
  p = fma(p, k, set1(-0.750181579f));
  p = fma(p, k, set1(1.31865295f));
  p = fma(p, k, set1(-0.909740678f));
  p = fma(p, k, set1(0.094321431f));
  p = fma(p, k, set1(-0.0902556605f));
  p = fma(p, k, set1(0.0652326514f));
  p = fma(p, k, set1(0.380354122f));
  p = fma(p, k, set1(0.999348078f));
  p = fma(p, k, set1(-1.26548227f));
  const V half = mul(mul(set1(0.5f), k), exp2_v(mul(sub(p, mul(z, z)), set1(kLog2e))));
  return sub(max(zero(), x), mul(size, half));
}

ALBIREO_INLINE V relu(V x) { return max(zero(), x); }

ALBIREO_INLINE V relu2(V x) { return mul(relu(x), relu(x)); }

ALBIREO_INLINE V gelu_tanh(V x) {
  V cube = mul(mul(x, x), x);
  V inner = mul(fma(cube, set1(0.044715f), x), set1(0.79788456f));
  return mul(mul(x, set1(0.5f)), add(set1(1.0f), tanh_v(inner)));
}

}  // namespace
