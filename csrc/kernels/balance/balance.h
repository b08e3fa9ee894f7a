// out[i]: the matrix x[i] made such that its rows and its columns add up to one, by Sinkhorn and Knopp's rounds.
//   m = exp(x) / the sum of its column + eps;  m = m / (the sum of its row + eps)
//   and num_heads - 1 times: m = m / (the sum of its column + eps);  m = m / (the sum of its row + eps)
// x, out [rows, N * N] float32, row by row of the matrix, out may be x. N = k, at most kMostStreams. Sums ascend; a
// matrix's bits depend on itself alone. Source: Sinkhorn and Knopp 1967; Xie et al. 2026, Manifold-Constrained
// Hyper-Connections. Reads: x out k num_heads eps rows x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kMostStreams = 16;
void balance_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void balance_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void balance_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void balance_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kBalance;
}  // namespace albireo
