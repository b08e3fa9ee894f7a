// Body of depthwise_conv for one ISA level; include after gemm.inl, which stores rows of any type.
#include "kernels/depthwise_conv/depthwise_conv.h"

namespace {
using namespace albireo;

// 16 channels from c on, n of them there, of rows begin to end of T.
ALBIREO_INLINE void convolve_rows(const Args& a, int64_t begin, int64_t end, int64_t T, int64_t c, int64_t n) {
  const auto part = [n](const float* p) { return n == 16 ? load(p) : load_n(p, n); };
  alignas(64) float weight[kMostDepthwise * 16] = {};
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < a.k; j++) weight[j * 16 + i] = ((const float*)a.weight)[(c + i) * a.k + j];
  const V bias = a.bias ? part(a.bias + c) : zero();
  const int64_t stride = x_stride(a, a.n), reach = a.k / 2;
  for (int64_t t = begin; t < end; t++) {
    const int64_t first = t < reach ? reach - t : 0, last = T - t > reach ? a.k : T - t + reach;
    const float* x = (const float*)a.x + (t - reach + first) * stride + c;
    V sum = zero();
    for (int64_t j = first; j < last; j++, x += stride) sum = fma(load(weight + j * 16), part(x), sum);
    if (a.bias) sum = add(sum, bias);
    if (a.act == 0) sum = silu(sum);
    store_as(a.out_dtype, a.out, t * out_stride(a, a.n) + c, sum, n);
  }
}

ALBIREO_INLINE void dispatch_depthwise_conv(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch&) {
  const int64_t blocks = ceil_div(a.n, kDepthwiseChannels);
  for (int64_t item = begin; item < end; item++) {
    const int64_t row = item / blocks * kDepthwiseRows, first = item % blocks * kDepthwiseChannels;
    const int64_t stop = row + kDepthwiseRows < s.T ? row + kDepthwiseRows : s.T;
    for (int64_t c = first; c < first + kDepthwiseChannels && c < a.n; c += 16)
      convolve_rows(a, row, stop, s.T, c, a.n - c < 16 ? a.n - c : 16);
  }
}

}  // namespace
