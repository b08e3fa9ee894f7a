// out[i, e] = x[i, e] for the columns of out: some columns of a wider x, copied. x points at the first of them.
// x [rows, more], out [rows, E], both out_dtype. E = k.
// Reads: x out k rows x_stride out_stride out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
extern const Family kSlice;
}  // namespace albireo
