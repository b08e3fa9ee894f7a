#define ALBIREO_HAVE_BF16_DOT
#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/panels.inl"

namespace albireo {
Panels* panels_avx512bf16(const Args& args, Scratch& scratch, char* memory, void* room) {
  return panels_of(args, scratch, memory, room);
}
}  // namespace albireo
