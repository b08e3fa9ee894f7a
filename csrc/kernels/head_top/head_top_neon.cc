#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/head_top/head_top.inl"

namespace albireo {
// Of levels that differ in how they multiply and in nothing else.
void head_top_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_top(args, step, begin, end, scratch, panels_neon);
}
void head_top_neondot(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_top(args, step, begin, end, scratch, panels_neondot);
}
void head_top_integers_neonmm(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_head_top(args, step, begin, end, scratch, panels_integers_neonmm);
}
}  // namespace albireo
