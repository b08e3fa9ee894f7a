// Body of pool_rows for one ISA level; include after math.inl.
#include "kernels/pool_rows/pool_rows.h"
#include "kernels/recurrence/columns.inl"

namespace {
using namespace albireo;

// Below every gate, and finite: no difference is NaN.
constexpr float kNoGate = -1e30f;

ALBIREO_INLINE V power_of(V gate, V most) { return exp2_below_126(mul(sub(gate, most), set1(kLog2e))); }

// One row more of a mean. mean: largest gate, sum of powers, sum of products, kStateColumns apart.
ALBIREO_INLINE void take_row(float* mean, V gate, V x, bool is_first) {
  float *at_most = mean, *at_whole = mean + kStateColumns, *at_sum = mean + 2 * kStateColumns;
  if (is_first) return store(at_most, gate), store(at_whole, set1(1.0f)), store(at_sum, x);
  const V before = load(at_most), most = max(before, gate);
  const V kept = power_of(before, most), given = power_of(gate, most);
  store(at_most, most);
  store(at_whole, fma(load(at_whole), kept, given));
  store(at_sum, fma(load(at_sum), kept, mul(given, x)));
}

// A mean, and what there is of another one beside it.
ALBIREO_INLINE V pooled(const float* mean, const float* other) {
  V whole = load(mean + kStateColumns), sum = load(mean + 2 * kStateColumns);
  if (other) {
    const V own = load(mean), apart = load(other), most = max(own, apart);
    const V kept = power_of(own, most), given = power_of(apart, most);
    whole = fma(whole, kept, mul(load(other + kStateColumns), given));
    sum = fma(sum, kept, mul(load(other + 2 * kStateColumns), given));
  }
  return div(sum, whole);
}

// Row t, which is at a place of its window: n channels from first on. state [parts][kStateColumns].
ALBIREO_INLINE void pool_row(const Args& a, int64_t t, int64_t position, int64_t first, int64_t n, float* state) {
  const int64_t series = a.num_k_heads, width = series * a.v_dim, place = position % a.k;
  const float* x = (const float*)a.x + t * x_stride(a, width) + first;
  const float* gates = a.y ? (const float*)a.y + t * (a.y_stride ? a.y_stride : width) + first : nullptr;
  const float* added = a.y ? a.a_log + place * width + first : nullptr;
  float* out = (float*)a.out + t * out_stride(a, a.v_dim) + first;
  float *own = state, *next = state + 3 * kStateColumns, *before = state + 6 * kStateColumns;
  if (series == 2 && place == 0) {
    memcpy(before, next, 3 * kStateColumns * sizeof(float));
    for (int64_t e = 0; position == 0 && e < kStateColumns; e += 16)
      store(before + e, set1(kNoGate)), store(before + kStateColumns + e, zero()),
          store(before + 2 * kStateColumns + e, zero());
  }
  for (int64_t e = 0; e < n; e += 16) {
    const int64_t left = n - e;
    const auto read = [left](const float* p) { return left >= 16 ? load(p) : load_n(p, left); };
    const auto row = [&](float* mean, int64_t from) {
      const V gate = gates ? add(read(gates + from + e), read(added + from + e)) : zero();
      take_row(mean + e, gate, read(x + from + e), place == 0);
    };
    row(own, (series - 1) * a.v_dim);
    if (series == 2) row(next, 0);
    const V v = place + 1 == a.k ? pooled(own + e, series == 2 ? before + e : nullptr) : zero();
    left >= 16 ? store(out + e, v) : store_n(out + e, v, left);
  }
}

// Channels first to first + n of sequence b.
ALBIREO_INLINE void pool_item(const Args& a, const Step& s, int64_t b, int64_t first, int64_t n) {
  const int64_t from = s.query_start[b], to = s.query_start[b + 1], parts = pooled_parts(a);
  float state[9 * kStateColumns];
  float* stored = a.state + s.state_slots[b] * a.state_size + first;
  const int64_t snapshot = from + rows_of_snapshot(s, b);
  take_columns(state, stored, parts, a.v_dim, n, to - from == s.context_len[b]);
  for (int64_t t = from; t < to; t++) {
    pool_row(a, t, s.positions[t], first, n, state);
    if (t + 1 == snapshot)
      keep_columns(state, stored + (s.snapshot_slots[b] - s.state_slots[b]) * a.state_size, parts, a.v_dim, n);
  }
  keep_columns(state, stored, parts, a.v_dim, n);
}

ALBIREO_INLINE void dispatch_pool_rows(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch&) {
  each_item(a, begin, end, [&](int64_t b, int64_t, int64_t first, int64_t n) { pool_item(a, s, b, first, n); });
}

}  // namespace
