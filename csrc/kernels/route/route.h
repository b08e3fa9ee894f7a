// ids[t] = the top_k best of x[t], best first, of equals the lowest id, NaN before all numbers
// weights[t, j] = exp(x[t, ids[t, j]] - most) / sum       most: the largest of x[t]
// sum: of the exponentials of the chosen, j ascending, where renormalize; else of all E, ascending, in one chain.
// x [T, E] float32; ids [T, top_k] int32; weights [T, top_k] float32. E = k.
// Row by row: bitwise independent of the batch. Reads: x ids pair_weights k top_k renormalize rows x_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void route_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void route_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void route_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kRoute;
}  // namespace albireo
