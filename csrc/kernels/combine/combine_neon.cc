#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "kernels/gemm/gemm.inl"
#include "kernels/combine/combine.inl"

namespace albireo {
void combine_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_combine(args, step, begin, end, scratch);
}
}  // namespace albireo
