#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "kernels/add_parts/add_parts.inl"

namespace albireo {
void add_parts_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_add_parts(args, step, begin, end, scratch);
}
}  // namespace albireo
