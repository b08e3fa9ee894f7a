#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
void linear_neonmm(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_neonmm);
}
}  // namespace albireo
