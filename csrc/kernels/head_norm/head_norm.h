// out[i, h] = x[i, h] / sqrt(mean(x[i, h]^2) + eps) (* weight), for each of num_heads parts of D channels
// x, out [rows, H * D] float32; weight [padded n] float32, where n = D: of each head, or n = H * D: of all. D = k.
// weight may be null. Head by head, as qkv_rope_kv norms them. centered: of each head minus its mean.
// Reads: x weight out n k num_heads eps centered rows x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void head_norm_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_norm_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_norm_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_norm_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kHeadNorm;
}  // namespace albireo
