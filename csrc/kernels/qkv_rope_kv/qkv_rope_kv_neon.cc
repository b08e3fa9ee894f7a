#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/qkv_rope_kv/qkv_rope_kv.inl"

namespace albireo {
// Of levels that differ in how they multiply and in nothing else.
void qkv_rope_kv_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_neon);
}
void qkv_rope_kv_neondot(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_neondot);
}
void qkv_rope_kv_integers_neonmm(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_integers_neonmm);
}
}  // namespace albireo
