#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
// Of levels that differ in how they multiply and in nothing else.
void linear_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_avx512);
}
void linear_avx512vnni(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_avx512vnni);
}
void linear_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_amx);
}
}  // namespace albireo
