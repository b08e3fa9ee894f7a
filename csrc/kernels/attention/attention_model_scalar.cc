// attention_amx.cc on the model of tile registers: for tests, on any machine.
#define ALBIREO_TILES ModelTiles
#include "simd/vec_scalar.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_model.h"
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/attention/attention.inl"

namespace albireo {
void attention_amx_model(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  if (is_tiled(args)) dispatch_attention(args, step, begin, end, scratch);
  else attention_scalar(args, step, begin, end, scratch);
}
}  // namespace albireo
