// One attention of two whose rows have seen different positions, and of one score more of each head:
//   out[i, h] = (2^(mx - m) vx + 2^(my - m) vy) / (2^(mx - m) lx + 2^(my - m) ly + 2^(log2(e) sinks[h] - m))
// with vx, mx, lx of head h of x, as attention gives them where sums is said; m is the largest of the exponents.
// x, y [rows, H * (W + 2)] float32; sinks [H] float32; out [rows, H * W] out_dtype, rounded. H = num_heads, W = k. Head
// by head: bitwise independent of the batch. Reads: x y sinks out k num_heads rows x_stride y_stride out_stride
// out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void join_sums_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_sums_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_sums_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_sums_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kJoinSums;
}  // namespace albireo
