#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/head_top/head_top.inl"

namespace albireo {
void head_top_avx512bf16(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_top(args, step, begin, end, scratch, panels_avx512bf16);
}
void head_top_bf16_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_top(args, step, begin, end, scratch, panels_amx);
}
}  // namespace albireo
