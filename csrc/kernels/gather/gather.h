// out[i, e] = x[r, e] with r = gathered_row(i)
// x [T or S, E], out [rows, E], both out_dtype. E = k.
// Reads: x out k gather rows out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void gather_rows(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kGather;
}  // namespace albireo
