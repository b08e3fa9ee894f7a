// The gated delta rule over the rows of each sequence, one after another; of each head of values, with S its state:
//   S = g S;  S = S + k (b (v - k^T S))^T;  out = q^T S
//   g = exp(-exp(a_log) softplus(gates[H + h] + dt_bias)), b = sigmoid(gates[h]), twice that if act is 1
//   y (how long a channel counts): g is a number of each channel of K, exp(-exp(a_log) softplus(y[h K + i] + dt_bias)),
//   and gates are those of b alone
//   scale above 0: g = exp(-scale sigmoid(exp(a_log) t)) of the same t, of which else the softplus is taken
//   k, q: of the head's key and query divided by sqrt(sum of squares + 1e-6), q also by sqrt(K)
// x [T, 2 G K + H V] float32: queries and keys of G heads of K channels, values of H heads of V, which share keys in
// runs; gates [T, 2 H], a_log, dt_bias [H] float32, or gates [T, H], y [T, H K], dt_bias [H K]; out [T, H V] float32,
// apart from x; state: of each slot [H, K, V] float32, zeros for a sequence whose first row is in this step. H =
// num_heads, G = num_k_heads, K = k_dim, V = v_dim. A column of S depends on nothing but itself, so an item is
// kStateColumns of one head of one sequence; they stay in the first-level cache for all its rows. Sums over K are two
// chains, of even and of odd places, added at the end: a row's bits do not depend on the step it is computed in. Reads:
// x y y_stride gates a_log dt_bias out state state_size num_heads num_k_heads k_dim v_dim act scale x_stride
// out_stride.
#pragma once
#include "kernels/recurrence/columns.h"

namespace albireo {
void gated_delta_rule_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gated_delta_rule_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gated_delta_rule_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gated_delta_rule_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kGatedDeltaRule;
}  // namespace albireo
