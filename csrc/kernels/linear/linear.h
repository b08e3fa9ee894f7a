// out = act(x @ weight^T + low @ B^T + bias) + residual, the second for rows with an adapter (kernels/adapter)
// x [M, K] x_dtype; weight panels p64.<w_dtype>; bias [padded N] float32; residual and out [M, n], may be the same.
// act 3, 4, 5: of every output. act 1, 2: a panel holds 32 gate columns, then 32 up columns; out[m, j] = act(gate_j) *
// up_j, n counts outputs. Accumulates in float32, one chain an output, or with chunks (1, 2, 4, 8; k / chunks whole
// steps) one chain for each of so many equal parts of k, which are added as a binary tree. Row m depends on row m only:
// bitwise independent of M and threads. Reads: x weight bias residual out n k act chunks rows adapters low x_dtype
// w_dtype out_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"

namespace albireo {
constexpr int64_t linear_panels(const Args& a) { return ceil_div(a.n, is_gated(a.act) ? kGateUpInterleave : kPanel); }
// Tiles of C that are in use at once: the leaf at hand, and a sum that waits for its other half on every level above.
constexpr int64_t linear_tiles(const Args& a) {
  int64_t tiles = 1;
  for (int64_t chunks = a.chunks; chunks > 1; chunks /= 2) tiles++;
  return tiles;
}
// Where k is cut (see deep_product): panels that are multiplied side by side, chunks of rows that are, and how many
// rows it takes for that; fewer go over a panel together.
constexpr int64_t kDeepPanels = 4, kDeepChunks = 3, kDeepRows = 32;
void linear_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avxvnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx512vnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_bf16_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_neondot(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_integers_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void linear_amx_model(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kLinear;
}  // namespace albireo
