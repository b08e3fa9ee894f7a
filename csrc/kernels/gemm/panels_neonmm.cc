#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/panels.inl"

namespace albireo {
Panels* panels_neonmm(const Args& args, Scratch& scratch, char* memory, void* room) {
  return panels_of(args, scratch, memory, room);
}
}  // namespace albireo
