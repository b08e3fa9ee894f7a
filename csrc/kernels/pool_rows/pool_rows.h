// Of every k rows of a sequence one, channel by channel: where such a window of positions ends, the mean of its numbers
// weighed by the softmax of gates + a_log; other rows are zeros.
//   out[t] = sum over rows j of exp(g[j]) x[j] / sum over rows j of exp(g[j]);  g[j] = y[j] + a_log[position of j % k]
// x, y [T, n * V] float32, a_log [k, n * V] float32, or neither y nor a_log: they are zeros; out [T, V] apart from x
// and y. V = v_dim; n = num_k_heads. n = 1: j are the rows of the window. n = 2: of the window before, with the first V
// of their channels, and of the window itself, with the last V; the first window has none before it. state: of each
// slot [3 n (n + 1) / 2, V] float32: largest gate, sum of powers, sum of products, of the rows so far; of two series
// those of the last, then of the first for the window that comes, then of the first for this one. Nothing of it is read
// at a window's first row, but of two series what the row before has left. Rows are taken one after another: their bits
// do not depend on the step they are computed in. Source: DeepSeek-AI 2026, DeepSeek-V4. Reads: x y a_log out state
// state_size k num_k_heads num_heads (one) v_dim x_stride y_stride out_stride.
#pragma once
#include "kernels/recurrence/columns.h"

namespace albireo {
constexpr int64_t pooled_parts(const Args& a) { return a.num_k_heads == 2 ? 9 : 3; }
void pool_rows_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void pool_rows_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void pool_rows_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void pool_rows_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kPoolRows;
}  // namespace albireo
