#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/balance/balance.inl"

namespace albireo {
void balance_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_balance(args, step, begin, end, scratch);
}
}  // namespace albireo
