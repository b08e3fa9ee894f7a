#define ALBIREO_HAVE_BF16_DOT
#define ALBIREO_TILES AmxTiles
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_amx.h"
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/attention/attention.inl"

namespace albireo {
void attention_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  if (is_tiled(args)) dispatch_attention(args, step, begin, end, scratch);
  else attention_avx512bf16(args, step, begin, end, scratch);
}
}  // namespace albireo
