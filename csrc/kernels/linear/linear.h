// out = act(x @ weight^T + bias) + residual
// x [M, K] x_dtype; weight panels p64.<w_dtype>; bias [padded N] float32; residual and out [M, n], may be the same.
// act 1, 2: a panel holds 32 gate columns, then 32 up columns; out[m, j] = act(gate_j) * up_j, n counts outputs.
// Accumulates in float32, one chain an output. Row m depends on row m only: bitwise independent of M and threads.
// Reads: x weight bias residual out n k act rows x_dtype w_dtype out_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"

namespace albireo {
constexpr int64_t linear_panels(const Args& a) { return ceil_div(a.n, a.act ? kGateUpInterleave : kPanel); }
void linear_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kLinear;
}  // namespace albireo
