#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/qkv_rope_kv/qkv_rope_kv.inl"

namespace albireo {
void qkv_rope_kv_avx512bf16(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_avx512bf16);
}
void qkv_rope_kv_bf16_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_qkv_rope_kv(args, step, begin, end, scratch, panels_amx);
}
}  // namespace albireo
