#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"
#include "kernels/expert_linear/expert_linear.inl"

namespace albireo {
void expert_linear_avx512bf16(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_expert_linear(args, step, begin, end, scratch, panels_avx512bf16);
}
void expert_linear_bf16_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_expert_linear(args, step, begin, end, scratch, panels_amx);
}
}  // namespace albireo
