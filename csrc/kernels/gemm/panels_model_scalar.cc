// The panels of panels_amx.cc on the model of tile registers: for tests, on any machine.
#define ALBIREO_TILES ModelTiles
#include "simd/vec_scalar.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_model.h"
#include "simd/math.inl"
#include "kernels/gemm/panels.inl"

namespace albireo {
Panels* panels_amx_model(const Args& args, Scratch& scratch, char* memory, void* room) {
  return panels_of(args, scratch, memory, room);
}
}  // namespace albireo
