// out[i] = f(x[i] [, y[i]]) with f one of RowMap: what is done to a row as a whole.
// x, y, out [rows, E] float32, out may be x. E = k. kMatchLength: x sqrt(mean(y^2) / max(mean(x^2), scale)).
// kCut: what x is above its mean and scale of its standard deviations, else 0. Row by row: bitwise independent of the
// batch. Reads: x y out k act scale rows x_stride y_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
// The numbers are those of graph/program_spec.py.
enum class RowMap : int32_t {
  kMatchLength = 0,
  kCut = 1,
};
void row_map_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void row_map_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void row_map_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void row_map_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kRowMap;
}  // namespace albireo
