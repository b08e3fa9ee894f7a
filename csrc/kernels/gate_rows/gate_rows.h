// out[t, h] = x[t, h] / (1 + exp(-gate[t, h])) + residual[t, h], of parts h of k columns; act 1: softplus(gate) x +
// residual. x, residual, out [T, N] float32, residual and out may be the same; gate [T, N / k] float32, rows without a
// gap. N = n. Row by row: bitwise independent of the batch. Reads: x y (the gate) residual out n k act rows x_stride
// out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kGateColumns = 512;  // of one item
void gate_rows_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gate_rows_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gate_rows_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void gate_rows_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kGateRows;
}  // namespace albireo
