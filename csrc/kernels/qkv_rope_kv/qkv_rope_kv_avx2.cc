#include "simd/vec_avx2.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/qkv_rope_kv/qkv_rope_kv.inl"

namespace albireo {
void qkv_rope_kv_avx2(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_avx2);
}
void qkv_rope_kv_avxvnni(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_avxvnni);
}
}  // namespace albireo
