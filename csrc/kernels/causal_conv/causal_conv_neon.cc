#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/causal_conv/causal_conv.inl"

namespace albireo {
void causal_conv_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_causal_conv(args, step, begin, end, scratch);
}
}  // namespace albireo
