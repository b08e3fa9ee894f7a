// Body of causal_conv for one ISA level; include after gemm.inl, which stores rows of any type.
#include "kernels/causal_conv/causal_conv.h"

namespace {
using namespace albireo;

// The last W - 1 rows of n channels from c on.
template <int W>
ALBIREO_INLINE void keep_window(const Args& a, float* state, const V* window, int64_t c, int64_t n) {
  for (int j = 0; j < W - 1; j++) {
    if (n == 16) store(state + j * a.n + c, window[j]);
    else store_n(state + j * a.n + c, window[j], n);
  }
}

// 16 channels of one sequence, n of them there; its rows are begin to end of x, and behind those before `middle` what
// is kept goes to snapshot, too.
template <int W>
ALBIREO_INLINE void convolve(const Args& a, float* state, float* snapshot, bool is_new, int64_t begin, int64_t middle,
                             int64_t end, int64_t c, int64_t n) {
  const auto part = [n](const float* p) { return n == 16 ? load(p) : load_n(p, n); };
  V weight[W], window[W], bias = a.bias ? part(a.bias + c) : zero();
  for (int j = 0; j < W; j++) {
    float lanes[16] = {};
    for (int64_t i = 0; i < n; i++) lanes[i] = ((const float*)a.weight)[(c + i) * W + j];
    weight[j] = load(lanes);
    if (j < W - 1) window[j] = is_new ? zero() : part(state + j * a.n + c);
  }
  for (int64_t t = begin; t < end; t++) {
    const float* x = (const float*)a.x + t * x_stride(a, a.gated ? 3 * a.n : a.n) + c;
    window[W - 1] = part(x);
    if (a.gated) window[W - 1] = mul(window[W - 1], part(x + 2 * a.n));
    V sum = mul(weight[0], window[0]);
    for (int j = 1; j < W; j++) sum = fma(weight[j], window[j], sum);
    for (int j = 0; j < W - 1; j++) window[j] = window[j + 1];
    if (a.bias) sum = add(sum, bias);
    if (a.act == 0) sum = silu(sum);
    if (a.gated) sum = mul(sum, part(x + a.n));
    store_as(a.out_dtype, a.out, t * out_stride(a, a.n) + c, sum, n);
    if (t + 1 == middle) keep_window<W>(a, snapshot, window, c, n);
  }
  keep_window<W>(a, state, window, c, n);
}

template <int W>
void convolve_items(const Args& a, const Step& s, int64_t begin, int64_t end) {
  const int64_t blocks = ceil_div(a.n, kConvChannels);
  for (int64_t item = begin; item < end; item++) {
    const int64_t b = item / blocks, first = item % blocks * kConvChannels;
    const int64_t from = s.query_start[b], to = s.query_start[b + 1];
    float* state = a.state + s.state_slots[b] * a.state_size;
    const int64_t rows = s.snapshot_rows ? s.snapshot_rows[b] : 0;
    float* snapshot = rows ? a.state + s.snapshot_slots[b] * a.state_size : nullptr;
    for (int64_t c = first; c < first + kConvChannels && c < a.n; c += 16)
      convolve<W>(a, state, snapshot, to - from == s.context_len[b], from, from + rows, to, c,
                  a.n - c < 16 ? a.n - c : 16);
  }
}

ALBIREO_INLINE void dispatch_causal_conv(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch&) {
  switch (a.k) {
    case 2: return convolve_items<2>(a, s, begin, end);
    case 3: return convolve_items<3>(a, s, begin, end);
    case 4: return convolve_items<4>(a, s, begin, end);
    case 5: return convolve_items<5>(a, s, begin, end);
    case 6: return convolve_items<6>(a, s, begin, end);
    case 7: return convolve_items<7>(a, s, begin, end);
    case 8: return convolve_items<8>(a, s, begin, end);
  }
}

}  // namespace
