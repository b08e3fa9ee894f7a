// Rotates channel pairs (i, i + D/2) of each of num_heads heads by what rope_row() says of row gathered_row(t).
// side_by_side: pairs are (2i, 2i + 1). x, out [T, H * D] float32; rope [positions][2][D/2] float32. D = k. Head by
// head, as qkv_rope_kv rotates them. weight, bias [H] float32, where there are any, and pairs are not side by side:
// head h is multiplied by weight[h] * ln(position + first_key) + bias[h]. Reads: x rope weight bias first_key out k
// num_heads side_by_side x_stride out_stride rows gather.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void rope_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void rope_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void rope_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void rope_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kRope;
}  // namespace albireo
