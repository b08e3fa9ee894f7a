#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/depthwise_conv/depthwise_conv.inl"

namespace albireo {
void depthwise_conv_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_depthwise_conv(args, step, begin, end, scratch);
}
}  // namespace albireo
