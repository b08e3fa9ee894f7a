#define ALBIREO_HAVE_BYTE_DOT  // for fewer rows than a tile has
#define ALBIREO_TILES AmxTiles
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/tiles_amx.h"
#include "simd/math.inl"
#include "kernels/gemm/panels.inl"

namespace albireo {
Panels* panels_amx(const Args& args, Scratch& scratch, char* memory, void* room) {
  return panels_of(args, scratch, memory, room);
}
}  // namespace albireo
