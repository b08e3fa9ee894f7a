#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/qkv_rope_kv/qkv_rope_kv.inl"
#include "kernels/rope/rope.inl"

namespace albireo {
void rope_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_rope(args, step, begin, end, scratch);
}
}  // namespace albireo
