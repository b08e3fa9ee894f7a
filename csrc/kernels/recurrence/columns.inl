// Columns of states for one ISA level; include after math.inl.
#include <cstring>

#include "kernels/recurrence/columns.h"

namespace {
using namespace albireo;

constexpr int kColumnVectors = kStateColumns / 16;

// visit(i, parity) for i from 0 to n - 1, parity being i % 2: a constant, so that what it picks stays in registers.
template <class Visit>
ALBIREO_INLINE void in_pairs(int64_t n, Visit visit) {
  int64_t i = 0;
  for (; i + 1 < n; i += 2) visit(i, 0), visit(i + 1, 1);
  if (i < n) visit(i, 0);
}

// n columns of a state [K, V] from `stored` on, kStateColumns apart; zeros behind them, and for a new sequence.
ALBIREO_INLINE void take_columns(float* columns, const float* stored, int64_t k_dim, int64_t v_dim, int64_t n,
                                 bool is_new) {
  memset(columns, 0, k_dim * kStateColumns * sizeof(float));
  if (is_new) return;
  for (int64_t i = 0; i < k_dim; i++) memcpy(columns + i * kStateColumns, stored + i * v_dim, n * sizeof(float));
}

ALBIREO_INLINE void keep_columns(const float* columns, float* stored, int64_t k_dim, int64_t v_dim, int64_t n) {
  for (int64_t i = 0; i < k_dim; i++) memcpy(stored + i * v_dim, columns + i * kStateColumns, n * sizeof(float));
}

// Rows of sequence b of the step behind which its state goes to another slot, too; 0: there are none.
ALBIREO_INLINE int64_t rows_of_snapshot(const Step& s, int64_t b) { return s.snapshot_rows ? s.snapshot_rows[b] : 0; }

// run(sequence, head, first column, how many there are) for each item.
template <class Run>
ALBIREO_INLINE void each_item(const Args& a, int64_t begin, int64_t end, Run run) {
  const int64_t blocks = column_blocks(a);
  for (int64_t item = begin; item < end; item++) {
    const int64_t first = item % blocks * kStateColumns, left = a.v_dim - first;
    run(item / blocks / a.num_heads, item / blocks % a.num_heads, first, left < kStateColumns ? left : kStateColumns);
  }
}

}  // namespace
