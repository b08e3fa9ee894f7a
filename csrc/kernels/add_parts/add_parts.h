// out[t, j] = x[t, j] + (coefs[t, j, 0] + plus) y[t, 0] + (coefs[t, j, 1] + plus) y[t, 1] + ... of the parts j of a row
// from the first_key-th on; the parts before are copied. Without coefficients they are zeros.
// x, out [rows, J * W], y [rows, I * W] float32, out apart from both; coefs [rows, J * I] float32, without a gap.
// W = k, J = num_heads, I = num_k_heads, plus = scale. Sums in this order: bitwise independent of the batch. An item is
// 512 columns of the parts of a row.
// Reads: x y gates (the coefficients) out k num_heads num_k_heads first_key scale rows x_stride y_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kPartColumns = 512;  // of one item
void add_parts_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void add_parts_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void add_parts_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void add_parts_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kAddParts;
}  // namespace albireo
