// out[t] = weights[t, 0] * x[t * top_k] + weights[t, 1] * x[t * top_k + 1] + ... + residual[t]
// x [P, N] float32; weights [T, top_k] float32; residual and out [T, N] float32, may be the same. N = n.
// Each product is rounded, then added, j ascending; the residual last. Where there are ids [T, top_k], x is [T, N]
// instead: out[t] = x[t] * the sum of weights[t, j] with ids[t, j] >= num_experts, j ascending, + residual[t]. Reads: x
// pair_weights ids num_experts residual out n top_k rows x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kCombineColumns = 512;  // of one item: a row of a small step is still shared among threads
void combine_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void combine_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void combine_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void combine_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kCombine;
}  // namespace albireo
