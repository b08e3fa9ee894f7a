#include "kernels/given/given.h"

#include <cstring>

namespace albireo {
namespace {
int64_t items(const Args&, const Step& s) { return s.T; }
int64_t scratch_bytes(const Args&) { return 0; }

void given_rows(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  const int64_t stride = out_stride(a, a.k);
  for (int64_t t = begin; t < end; t++)
    memcpy((float*)a.out + t * stride, step.given[a.n] + t * step.given_width[a.n], a.k * sizeof(float));
}

// One unit for all levels, as of gather.
constexpr Variant kVariants[] = {
    {"given", "any", "avx512", given_rows},
    {"given", "any", "avx2", given_rows},
    {"given", "any", "scalar", given_rows},
};
}  // namespace
const Family kGiven{"given", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
