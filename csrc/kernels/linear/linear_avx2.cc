#include "simd/vec_avx2.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
void linear_avx2(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_avx2);
}
void linear_avxvnni(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_avxvnni);
}
}  // namespace albireo
