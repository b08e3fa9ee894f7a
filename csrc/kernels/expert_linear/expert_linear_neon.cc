#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/linear/linear.inl"
#include "kernels/expert_linear/expert_linear.inl"

namespace albireo {
// Of levels that differ in how they multiply and in nothing else.
void expert_linear_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_expert_linear(args, step, begin, end, scratch, panels_neon);
}
void expert_linear_neondot(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_expert_linear(args, step, begin, end, scratch, panels_neondot);
}
void expert_linear_integers_neonmm(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_expert_linear(args, step, begin, end, scratch, panels_integers_neonmm);
}
}  // namespace albireo
