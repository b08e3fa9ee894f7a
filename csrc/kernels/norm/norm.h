// out[i, e] = x[r, e] / sqrt(mean_e(x[r, e]^2) + eps) * weight[e] + bias[e]   with r = gathered_row(i)
// centered: of x - mean_e(x), in two passes: the mean, then squares of differences from it. weight and bias may be
// none. and with a residual [rows, E] float32, which may be out: out[i, e] += residual[i, e]. x [T or S, E] float32;
// weight, bias [padded E] float32; out [rows, E] out_dtype. E = k. Row by row: bitwise independent of the batch.
// Source: Zhang & Sennrich 2019, eq. 4. Reads: x weight bias centered residual out k eps gather rows out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void norm_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void norm_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void norm_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void norm_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kNorm;
}  // namespace albireo
