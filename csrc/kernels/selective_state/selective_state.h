// The selective state space of Mamba 2 over the rows of each sequence, one after another; of each head, S its state:
//   S = g S + b (t v)^T;  out = c^T S + skip v
//   t = softplus(dt + dt_bias), held between dt_least and dt_most;  g = exp(-exp(a_log) t)
// or, with slopes [H] in place of dt, a_log, dt_bias and skip: t = 1, skip = 0, g = exp(-slope).
// x [T, H V + 2 G K] float32: v of H heads of V channels, then b, then c of G heads of K, which heads share in runs;
// dt [T, H], a_log, dt_bias, skip [H] float32; out [T, H V] float32, apart from x; state: of each slot [H, K, V]
// float32, zeros for a sequence whose first row is in this step. H = num_heads, G = num_k_heads, K = k_dim, V = v_dim.
// Sums over K are two chains, of even and of odd places, added at the end: a row's bits do not depend on the step it is
// computed in. Source: Dao and Gu 2024, Transformers are SSMs;
// Qin et al. 2024, Lightning Attention-2.
// Reads: x dt a_log dt_bias skip out state state_size num_heads num_k_heads k_dim v_dim dt_least dt_most x_stride
// out_stride slopes.
#pragma once
#include "kernels/recurrence/columns.h"

namespace albireo {
void selective_state_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_state_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_state_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void selective_state_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kSelectiveState;
}  // namespace albireo
