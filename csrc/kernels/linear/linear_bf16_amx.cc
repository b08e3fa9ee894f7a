#define ALBIREO_TILES AmxTiles
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_amx.h"
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/gemm/integers.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
void linear_bf16_amx(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  run_linear<TiledPanels<AmxTiles>>(args, step, begin, end, scratch);
}
}  // namespace albireo
