// out[m, n] = the parts of all ranks, added as a binary tree, + bias + residual
// parts: each rank's [M, n] float32, rows x_stride apart; bias [n]; residual and out [M, n], may be the same.
// Neighbours are added first, then their sums: what linear's chunks do within a rank. Every rank computes the same.
// The runtime sees to it that the parts are finished, and that none is overwritten before all ranks have read it.
// Reads: parts ranks bias residual out n rows x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void all_reduce(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kAllReduce;
}  // namespace albireo
