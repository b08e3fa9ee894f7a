#include "simd/vec_scalar.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
// Of levels that differ in how they multiply and in nothing else.
void linear_scalar(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_scalar);
}
void linear_amx_model(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch, panels_amx_model);
}
}  // namespace albireo
