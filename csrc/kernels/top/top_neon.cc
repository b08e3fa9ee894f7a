#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/head_top/head_top.inl"
#include "kernels/top/top.inl"

namespace albireo {
void top_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_top(args, step, begin, end, scratch);
}
}  // namespace albireo
