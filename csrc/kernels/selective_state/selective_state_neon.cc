#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/selective_state/selective_state.inl"

namespace albireo {
void selective_state_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_selective_state(args, step, begin, end, scratch);
}
}  // namespace albireo
