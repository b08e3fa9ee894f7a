// out[m, h] = x[m, h] @ block h of weight^T for each of num_heads heads: k columns of x become n columns of out.
// x [M, H * k] x_dtype; weight p64.<w_dtype>, H blocks of whole panels, each of a head's n rows; out [M, H * n]
// out_dtype. Numbers only. One chain an output, as linear's. Reads: x weight out n k num_heads rows x_stride
// out_stride x_dtype w_dtype out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void head_linear_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_bf16_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_linear_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kHeadLinear;
}  // namespace albireo
