#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/pool_rows/pool_rows.inl"

namespace albireo {
void pool_rows_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_pool_rows(args, step, begin, end, scratch);
}
}  // namespace albireo
