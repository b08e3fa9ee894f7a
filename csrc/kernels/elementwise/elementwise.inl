// Body of elementwise for one ISA level.
#include <cmath>

#include "kernels/elementwise/elementwise.h"
#include "simd/tokens.inl"

namespace {

template <class F>
ALBIREO_INLINE void map_row(const Args& a, int64_t i, F f) {
  const float *x = (const float*)a.x + i * x_stride(a, a.k), *y = (const float*)a.y + i * x_stride(a, a.k);
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e;
    const V v = n >= 16 ? load(x + e) : load_n(x + e, n);
    const V other = !a.y ? v : n >= 16 ? load(y + e) : load_n(y + e, n);
    store_as(a.out_dtype, a.out, i * out_stride(a, a.k) + e, f(v, other), n);
  }
}

// x between ends[0] and ends[1]; what is no number stays so.
ALBIREO_INLINE V clamped(V x, const float* ends) { return min(set1(ends[1]), max(set1(ends[0]), x)); }

// log(1 + e^x).
inline float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

ALBIREO_INLINE V xielu(V x, V right, V left) {
  const V below = min(zero(), x), above = max(zero(), x);
  const V curve = sub(sub(exp2_v(mul(below, set1(kLog2e))), set1(1.0f)), below);
  return fma(x, set1(0.5f), fma(mul(right, above), above, mul(left, curve)));
}

void xielu_row(const Args& a, int64_t i) {
  const float* numbers = (const float*)a.weight;
  const V right = set1(softplus(numbers[0])), left = set1(0.5f + softplus(numbers[1]));
  map_row(a, i, [&](V x, V) { return xielu(x, right, left); });
}

// Each column times a number of its own, or more by it.
template <class F>
ALBIREO_INLINE void column_row(const Args& a, int64_t i, F f) {
  const float *x = (const float*)a.x + i * x_stride(a, a.k), *weight = (const float*)a.weight;
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e;
    const auto read = [n](const float* p) { return n >= 16 ? load(p) : load_n(p, n); };
    store_as(a.out_dtype, a.out, i * out_stride(a, a.k) + e, f(read(x + e), read(weight + e)), n);
  }
}

// A row of numbers as 8-bit codes with one scale.
template <class T>
void quantize_row(const Args& a, int64_t i, float* numbers) {
  const T* x = (const T*)a.x + i * x_stride(a, a.k);
  for (int64_t e = 0; e < a.k; e += 16)
    store(numbers + e, a.k - e >= 16 ? load(x + e) : Activations<WeightF32>::load_narrow(x + e, a.k - e));
  store_token(numbers, a.k, (char*)a.out + i * a.out_stride);
}

ALBIREO_INLINE void dispatch_elementwise(const Args& a, const Step&, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.out_dtype == DType::kInt8Token) {
    for (int64_t i = begin; i < end; i++)
      if (a.x_dtype == DType::kF32) quantize_row<float>(a, i, (float*)scratch.base);
      else if (a.x_dtype == DType::kBF16) quantize_row<bf16>(a, i, (float*)scratch.base);
      else quantize_row<f16>(a, i, (float*)scratch.base);
    return;
  }
  for (int64_t i = begin; i < end; i++) switch ((Map)a.act) {
      case Map::kCast: map_row(a, i, [](V x, V) { return x; }); break;
      case Map::kSilu: map_row(a, i, [](V x, V) { return silu(x); }); break;
      case Map::kGelu: map_row(a, i, [](V x, V) { return gelu(x); }); break;
      case Map::kRelu: map_row(a, i, [](V x, V) { return relu(x); }); break;
      case Map::kRelu2: map_row(a, i, [](V x, V) { return relu2(x); }); break;
      case Map::kGeluTanh: map_row(a, i, [](V x, V) { return gelu_tanh(x); }); break;
      case Map::kScale: map_row(a, i, [&](V x, V) { return mul(x, set1(a.scale)); }); break;
      case Map::kSoftcap: map_row(a, i, [&](V x, V) { return softcap(x, a.softcap); }); break;
      case Map::kScaleBy: map_row(a, i, [&](V x, V) { return mul(x, set1(((const float*)a.weight)[0])); }); break;
      case Map::kClamp: map_row(a, i, [&](V x, V) { return clamped(x, (const float*)a.weight); }); break;
      case Map::kClip: {
        const float ends[2] = {-a.scale, a.scale};
        map_row(a, i, [&](V x, V) { return clamped(x, ends); });
        break;
      }
      case Map::kClipAbove: map_row(a, i, [&](V x, V) { return min(set1(a.scale), x); }); break;
      case Map::kXielu: xielu_row(a, i); break;
      case Map::kGain: column_row(a, i, [](V x, V w) { return mul(x, w); }); break;
      case Map::kShift: column_row(a, i, [](V x, V w) { return add(x, w); }); break;
      case Map::kAdd: map_row(a, i, [](V x, V y) { return add(x, y); }); break;
      case Map::kMul: map_row(a, i, [](V x, V y) { return mul(x, y); }); break;
      case Map::kSigmoid: map_row(a, i, [](V x, V) { return sigmoid(x); }); break;
      case Map::kClampedSwiglu: map_row(a, i, [](V x, V y) { return clamped_swiglu(x, y); }); break;
    }
}

}  // namespace
