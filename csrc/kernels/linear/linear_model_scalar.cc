// The kernels of linear_amx.cc and linear_bf16_amx.cc on the model of tile registers: for tests, on any machine.
#define ALBIREO_TILES ModelTiles
#include "simd/vec_scalar.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_model.h"
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/gemm/integers.inl"
#include "kernels/linear/linear.inl"

namespace albireo {
void linear_amx_model(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_linear(args, step, begin, end, scratch);
}
void linear_bf16_amx_model(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  run_linear<TiledPanels<ModelTiles>>(args, step, begin, end, scratch);
}
}  // namespace albireo
