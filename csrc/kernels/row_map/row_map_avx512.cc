#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/rms.inl"
#include "kernels/row_map/row_map.inl"

namespace albireo {
void row_map_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_row_map(args, step, begin, end, scratch);
}
}  // namespace albireo
