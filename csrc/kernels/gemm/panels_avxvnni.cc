#define ALBIREO_HAVE_BYTE_DOT
#include "simd/vec_avx2.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/panels.inl"

namespace albireo {
Panels* panels_avxvnni(const Args& args, Scratch& scratch, char* memory, void* room) {
  return panels_of(args, scratch, memory, room);
}
}  // namespace albireo
