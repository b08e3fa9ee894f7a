// Body of selective_scan for one ISA level.
#include "kernels/recurrence/columns.inl"
#include "kernels/selective_scan/selective_scan.h"

namespace {
using namespace albireo;

// How fast states of n channels from `first` on are left, as powers of two: [K][kStateColumns], zeros behind them.
ALBIREO_INLINE void take_speeds(float* speeds, const Args& a, int64_t first, int64_t n) {
  memset(speeds, 0, a.k_dim * kStateColumns * sizeof(float));
  for (int64_t e = 0; e < n; e++)
    for (int64_t k = 0; k < a.k_dim; k++) speeds[k * kStateColumns + e] = a.a_log[(first + e) * a.k_dim + k];
  for (int64_t i = 0; i < a.k_dim * kStateColumns; i += 16)
    store(speeds + i, mul(exp2_v(mul(load(speeds + i), set1(kLog2e))), set1(-kLog2e)));
}

// What a row leaves of states: [K][kStateColumns]. Apart from scan_row, since what powers of two are made of and sums
// have more vectors than there are registers.
ALBIREO_INLINE void kept_of_row(const float* speeds, int64_t k_dim, const float* times, float* kept) {
  for (int j = 0; j < kColumnVectors; j++) {
    const V time = load(times + 16 * j);
    for (int64_t k = 0; k < k_dim; k++) {
      const int64_t at = k * kStateColumns + 16 * j;
      store(kept + at, exp2_below_126(mul(load(speeds + at), time)));  // of at most zero
    }
  }
}

// One row: S [K][kStateColumns] goes on, out are its columns of the result. values, times, skip, out: kStateColumns.
ALBIREO_INLINE void scan_row(float* state, const float* kept, int64_t k_dim, const float* b, const float* c,
                             const float* values, const float* times, const float* skip, float* out) {
  for (int j = 0; j < kColumnVectors; j++) {
    const V value = load(values + 16 * j), given = mul(load(times + 16 * j), value);
    V sums[2] = {zero(), zero()};
    in_pairs(k_dim, [&](int64_t k, int parity) {
      const int64_t at = k * kStateColumns + 16 * j;
      const V next = fma(set1(b[k]), given, mul(load(state + at), load(kept + at)));
      store(state + at, next);
      sums[parity] = fma(set1(c[k]), next, sums[parity]);
    });
    store(out + 16 * j, fma(load(skip + 16 * j), value, add(sums[0], sums[1])));
  }
}

// Of rows from row on, at most kStateRows: values of n channels, and how long each row counts for them. Together, since
// rows are far apart: what one waits for does not wait for another's sums.
ALBIREO_INLINE void rows_of_channels(const Args& a, int64_t row, int64_t rows, int64_t first, int64_t n,
                                     const float* bias, float* values, float* times) {
  const int64_t bytes = n * (int64_t)sizeof(float), of_times = a.y_stride ? a.y_stride : a.v_dim;
  for (int64_t i = 0; i < rows; i++) {
    memcpy(values + i * kStateColumns, (const float*)a.x + (row + i) * x_stride(a, a.v_dim) + first, bytes);
    memcpy(times + i * kStateColumns, (const float*)a.y + (row + i) * of_times + first, bytes);
  }
  for (int64_t i = 0; i < rows * kStateColumns; i += 16)
    store(times + i, softplus(add(load(times + i), load(bias + i % kStateColumns))));
}

// Channels first to first + n of sequence b. columns: room for K rows each of states, speeds and what is kept.
ALBIREO_INLINE void scan_item(const Args& a, const Step& s, int64_t b, int64_t first, int64_t n, float* columns) {
  const int64_t from = s.query_start[b], to = s.query_start[b + 1], bytes = n * (int64_t)sizeof(float);
  float values[kStateRows * kStateColumns] = {}, times[kStateRows * kStateColumns] = {}, result[kStateColumns];
  float bias[kStateColumns] = {}, skip[kStateColumns] = {};
  float *state = columns, *speeds = state + a.k_dim * kStateColumns, *kept = speeds + a.k_dim * kStateColumns;
  float* stored = a.state + s.state_slots[b] * a.state_size + first;
  const int64_t snapshot = from + rows_of_snapshot(s, b);
  take_columns(state, stored, a.k_dim, a.v_dim, n, to - from == s.context_len[b]);
  take_speeds(speeds, a, first, n);
  memcpy(bias, a.dt_bias + first, bytes), memcpy(skip, a.skip + first, bytes);
  for (int64_t t = from; t < to; t++) {
    const int64_t row = (t - from) % kStateRows, at = row * kStateColumns, left = to - t;
    if (row == 0) rows_of_channels(a, t, left < kStateRows ? left : kStateRows, first, n, bias, values, times);
    const float* of_b = a.gates + t * 2 * a.k_dim;
    kept_of_row(speeds, a.k_dim, times + at, kept);
    scan_row(state, kept, a.k_dim, of_b, of_b + a.k_dim, values + at, times + at, skip, result);
    memcpy((float*)a.out + t * out_stride(a, a.v_dim) + first, result, bytes);
    if (t + 1 == snapshot)
      keep_columns(state, stored + (s.snapshot_slots[b] - s.state_slots[b]) * a.state_size, a.k_dim, a.v_dim, n);
  }
  keep_columns(state, stored, a.k_dim, a.v_dim, n);
}

ALBIREO_INLINE void dispatch_selective_scan(const Args& a, const Step& s, int64_t begin, int64_t end,
                                            Scratch& scratch) {
  each_item(a, begin, end,
            [&](int64_t b, int64_t, int64_t first, int64_t n) { scan_item(a, s, b, first, n, (float*)scratch.base); });
}

}  // namespace
