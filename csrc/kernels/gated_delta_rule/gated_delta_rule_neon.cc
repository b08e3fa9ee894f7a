#include "simd/vec_neon.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gated_delta_rule/gated_delta_rule.inl"

namespace albireo {
void gated_delta_rule_neon(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_gated_delta_rule(args, step, begin, end, scratch);
}
}  // namespace albireo
