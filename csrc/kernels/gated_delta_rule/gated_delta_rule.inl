// Body of gated_delta_rule for one ISA level.
#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "kernels/recurrence/columns.inl"

namespace {
using namespace albireo;

// What is left of head h's state when so much time went by, before its softplus, or its sigmoid.
ALBIREO_INLINE V left_of(const Args& a, int64_t h, V time) {
  const V speed = exp2_v(mul(set1(a.a_log[h]), set1(kLog2e)));
  if (a.scale > 0.0f) return exp2_v(mul(sigmoid(mul(speed, time)), set1(-kLog2e * a.scale)));
  return exp2_v(mul(mul(speed, softplus(time)), set1(-kLog2e)));
}

// What each of n rows from row on keeps of the state, and learns.
ALBIREO_INLINE void gate_rows_of_head(const Args& a, int64_t h, int64_t row, int64_t n, float* kept, float* learned) {
  float decays[16] = {}, rates[16] = {};
  const int64_t gates = a.y ? a.num_heads : 2 * a.num_heads;
  for (int64_t i = 0; i < n; i++) {
    rates[i] = a.gates[(row + i) * gates + h];
    if (!a.y) decays[i] = a.gates[(row + i) * gates + a.num_heads + h];
  }
  if (!a.y) store(kept, left_of(a, h, add(load(decays), set1(a.dt_bias[h]))));
  const V learns = sigmoid(load(rates));
  store(learned, a.act ? add(learns, learns) : learns);
}

// What each channel of head h keeps in row t, and what of that meets k [K]; zeros behind the end of both.
ALBIREO_INLINE void gate_channels(const Args& a, int64_t h, int64_t t, const float* k, float* kept, float* met) {
  const float* times = (const float*)a.y + t * (a.y_stride ? a.y_stride : a.num_heads * a.k_dim) + h * a.k_dim;
  const float* bias = a.dt_bias + h * a.k_dim;
  for (int64_t i = 0; i < a.k_dim; i += 16) {
    const int64_t left = a.k_dim - i < 16 ? a.k_dim - i : 16;
    const V each = left_of(a, h, add(load_n(times + i, left), load_n(bias + i, left)));
    store(kept + i, each);
    store(met + i, mul(load(k + i), each));
  }
}

// out = x / sqrt(sum of squares + eps) * scale; zeros behind the end, to a multiple of 16.
ALBIREO_INLINE void to_unit(const float* x, int64_t width, float scale, float* out) {
  V squares = zero();
  for (int64_t i = 0; i < width; i += 16) {
    const V v = width - i >= 16 ? load(x + i) : load_n(x + i, width - i);
    store(out + i, v);
    squares = fma(v, v, squares);
  }
  const V factor = set1(scale / __builtin_sqrtf(sum(squares) + 1e-6f));
  for (int64_t i = 0; i < width; i += 16) store(out + i, mul(load(out + i), factor));
}

// One row: S [K][kStateColumns] goes on, out are its columns of the result. values, out: kStateColumns. kept: one
// number, and met is k; or one of each channel, and met is k times it.
template <bool kOfChannels>
ALBIREO_INLINE void delta_row(float* state, int64_t k_dim, const float* q, const float* k, const float* met,
                              const float* values, const float* kept, float learned, float* out) {
  V sums[2][kColumnVectors], delta[kColumnVectors];
  for (int j = 0; j < kColumnVectors; j++) sums[0][j] = sums[1][j] = zero();
  in_pairs(k_dim, [&](int64_t i, int parity) {
    for (int j = 0; j < kColumnVectors; j++)
      sums[parity][j] = fma(set1(met[i]), load(state + i * kStateColumns + 16 * j), sums[parity][j]);
  });
  for (int j = 0; j < kColumnVectors; j++) {
    const V all = add(sums[0][j], sums[1][j]), found = kOfChannels ? all : mul(all, set1(kept[0]));
    delta[j] = mul(sub(load(values + 16 * j), found), set1(learned));
    sums[0][j] = sums[1][j] = zero();
  }
  in_pairs(k_dim, [&](int64_t i, int parity) {
    for (int j = 0; j < kColumnVectors; j++) {
      float* at = state + i * kStateColumns + 16 * j;
      const V next = fma(set1(k[i]), delta[j], mul(load(at), set1(kept[kOfChannels ? i : 0])));
      store(at, next);
      sums[parity][j] = fma(set1(q[i]), next, sums[parity][j]);
    }
  });
  for (int j = 0; j < kColumnVectors; j++) store(out + 16 * j, add(sums[0][j], sums[1][j]));
}

// Columns first to first + n of head h of sequence b.
ALBIREO_INLINE void delta_item(const Args& a, const Step& s, int64_t b, int64_t h, int64_t first, int64_t n,
                               float* scratch) {
  const int64_t from = s.query_start[b], to = s.query_start[b + 1];
  const int64_t key = h / (a.num_heads / a.num_k_heads), padded = round_up(a.k_dim, 16);
  const int64_t of_keys = a.num_k_heads * a.k_dim, width = 2 * of_keys + a.num_heads * a.v_dim;
  float *state = scratch, *q = state + a.k_dim * kStateColumns, *k = q + padded;
  float *of_channels = k + padded, *met = of_channels + padded;
  float values[kStateColumns] = {}, result[kStateColumns];
  float kept[kStateRows], learned[kStateRows];
  float* stored = a.state + s.state_slots[b] * a.state_size + h * a.k_dim * a.v_dim + first;
  const int64_t snapshot = from + rows_of_snapshot(s, b);
  take_columns(state, stored, a.k_dim, a.v_dim, n, to - from == s.context_len[b]);
  for (int64_t t = from; t < to; t++) {
    const int64_t place = (t - from) % kStateRows;
    if (place == 0) gate_rows_of_head(a, h, t, to - t < 16 ? to - t : 16, kept, learned);
    const float* x = (const float*)a.x + t * x_stride(a, width);
    to_unit(x + key * a.k_dim, a.k_dim, 1.0f / __builtin_sqrtf((float)a.k_dim), q);
    to_unit(x + of_keys + key * a.k_dim, a.k_dim, 1.0f, k);
    memcpy(values, x + 2 * of_keys + h * a.v_dim + first, n * sizeof(float));
    if (a.y) {
      gate_channels(a, h, t, k, of_channels, met);
      delta_row<true>(state, a.k_dim, q, k, met, values, of_channels, learned[place], result);
    } else {
      delta_row<false>(state, a.k_dim, q, k, k, values, kept + place, learned[place], result);
    }
    memcpy((float*)a.out + t * out_stride(a, a.num_heads * a.v_dim) + h * a.v_dim + first, result, n * sizeof(float));
    if (t + 1 == snapshot)
      keep_columns(state, stored + (s.snapshot_slots[b] - s.state_slots[b]) * a.state_size, a.k_dim, a.v_dim, n);
  }
  keep_columns(state, stored, a.k_dim, a.v_dim, n);
}

ALBIREO_INLINE void dispatch_gated_delta_rule(const Args& a, const Step& s, int64_t begin, int64_t end,
                                              Scratch& scratch) {
  each_item(a, begin, end, [&](int64_t b, int64_t h, int64_t first, int64_t n) {
    delta_item(a, s, b, h, first, n, (float*)scratch.base);
  });
}

}  // namespace
