// out[i, h] = x[i, h], then y[i, h]: of each of num_heads heads k columns of x and n columns of y, side by side.
// x [rows, H * k], y [rows, H * n] float32; out [rows, H * (k + n)] out_dtype, rounded.
// Reads: x y out n k num_heads rows x_stride y_stride out_stride out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void join_heads_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_heads_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_heads_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void join_heads_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kJoinHeads;
}  // namespace albireo
