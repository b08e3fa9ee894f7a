// Body of selective_state for one ISA level.
#include "kernels/recurrence/columns.inl"
#include "kernels/selective_state/selective_state.h"

namespace {
using namespace albireo;

// Of n rows from row on: what is kept of the state, and how long each of them counts.
ALBIREO_INLINE void times_of_head(const Args& a, int64_t h, int64_t row, int64_t n, float* kept, float* times) {
  if (a.slopes) {
    store(kept, exp2_v(set1(-kLog2e * a.slopes[h])));
    store(times, set1(1.0f));
    return;
  }
  float given[kStateRows] = {};
  for (int64_t i = 0; i < n; i++) given[i] = a.dt[(row + i) * a.num_heads + h];
  const V time = softplus(add(load(given), set1(a.dt_bias[h])));
  const V held = min(set1(a.dt_most), max(set1(a.dt_least), time));
  const V speed = exp2_v(mul(set1(a.a_log[h]), set1(kLog2e)));
  store(kept, exp2_v(mul(mul(speed, held), set1(-kLog2e))));
  store(times, held);
}

// One row: S [K][kStateColumns] goes on, out are its columns of the result. values, out: kStateColumns.
ALBIREO_INLINE void state_row(float* state, int64_t k_dim, const float* b, const float* c, const float* values,
                              float kept, float time, float skip, float* out) {
  V sums[2][kColumnVectors], given[kColumnVectors];
  for (int j = 0; j < kColumnVectors; j++) {
    sums[0][j] = sums[1][j] = zero();
    given[j] = mul(set1(time), load(values + 16 * j));
  }
  in_pairs(k_dim, [&](int64_t i, int parity) {
    for (int j = 0; j < kColumnVectors; j++) {
      float* at = state + i * kStateColumns + 16 * j;
      const V next = fma(set1(b[i]), given[j], mul(load(at), set1(kept)));
      store(at, next);
      sums[parity][j] = fma(set1(c[i]), next, sums[parity][j]);
    }
  });
  for (int j = 0; j < kColumnVectors; j++)
    store(out + 16 * j, fma(set1(skip), load(values + 16 * j), add(sums[0][j], sums[1][j])));
}

// Columns first to first + n of head h of sequence b.
ALBIREO_INLINE void state_item(const Args& a, const Step& s, int64_t b, int64_t h, int64_t first, int64_t n,
                               float* state) {
  const int64_t from = s.query_start[b], to = s.query_start[b + 1], of_values = a.num_heads * a.v_dim;
  const int64_t of_keys = a.num_k_heads * a.k_dim, key = h / (a.num_heads / a.num_k_heads) * a.k_dim;
  const float skip = a.slopes ? 0.0f : a.skip[h];
  float values[kStateColumns] = {}, result[kStateColumns], kept[kStateRows], times[kStateRows];
  float* stored = a.state + s.state_slots[b] * a.state_size + h * a.k_dim * a.v_dim + first;
  const int64_t snapshot = from + rows_of_snapshot(s, b);
  take_columns(state, stored, a.k_dim, a.v_dim, n, to - from == s.context_len[b]);
  for (int64_t t = from; t < to; t++) {
    const int64_t place = (t - from) % kStateRows;
    if (place == 0) times_of_head(a, h, t, to - t < kStateRows ? to - t : kStateRows, kept, times);
    const float* x = (const float*)a.x + t * x_stride(a, of_values + 2 * of_keys);
    const float* keys = x + of_values + key;
    memcpy(values, x + h * a.v_dim + first, n * sizeof(float));
    state_row(state, a.k_dim, keys, keys + of_keys, values, kept[place], times[place], skip, result);
    memcpy((float*)a.out + t * out_stride(a, of_values) + h * a.v_dim + first, result, n * sizeof(float));
    if (t + 1 == snapshot)
      keep_columns(state, stored + (s.snapshot_slots[b] - s.state_slots[b]) * a.state_size, a.k_dim, a.v_dim, n);
  }
  keep_columns(state, stored, a.k_dim, a.v_dim, n);
}

ALBIREO_INLINE void dispatch_selective_state(const Args& a, const Step& s, int64_t begin, int64_t end,
                                             Scratch& scratch) {
  each_item(a, begin, end, [&](int64_t b, int64_t h, int64_t first, int64_t n) {
    state_item(a, s, b, h, first, n, (float*)scratch.base);
  });
}

}  // namespace
