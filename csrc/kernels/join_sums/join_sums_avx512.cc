#include "simd/vec_avx512.h"
// clang-format off: the vocabulary comes first, what is written in it after
#include "simd/math.inl"
#include "kernels/gemm/gemm.inl"
#include "kernels/join_sums/join_sums.inl"

namespace albireo {
void join_sums_avx512(const Args& args, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  dispatch_join_sums(args, step, begin, end, scratch);
}
}  // namespace albireo
