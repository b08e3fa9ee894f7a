// The selective state space of Mamba 1 over the rows of each sequence, one after another; of each channel e of V, S its
// state of K numbers:
//   S[k] = exp(-exp(a_log[e][k]) t) S[k] + b[k] t x;  out = sum over k of c[k] S[k], + skip x;  t = softplus(dt +
//   dt_bias)
// x, y [T, V] float32: values, and dt; gates [T, 2 K] float32: b, then c; a_log [V, K], dt_bias, skip [V] float32;
// out [T, V], apart from x; state: of each slot [K, V] float32, zeros for a sequence whose first row is in this step.
// K = k_dim, V = v_dim; num_heads is one. Sums over K are two chains, of even and of odd places, added at the end: a
// row's bits do not depend on the step it is computed in. Source: Gu and Dao 2023, Mamba.
// Reads: x y gates a_log dt_bias skip out state state_size num_heads k_dim v_dim x_stride y_stride out_stride.
#pragma once
#include "kernels/recurrence/columns.h"

namespace albireo {
void selective_scan_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_scan_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_scan_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_scan_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kSelectiveScan;
}  // namespace albireo
