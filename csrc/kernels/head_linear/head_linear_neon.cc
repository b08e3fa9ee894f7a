#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"
#include "kernels/head_linear/head_linear.inl"

namespace albireo {
void head_linear_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_linear(args, step, begin, end, scratch, panels_neon);
}
}  // namespace albireo
