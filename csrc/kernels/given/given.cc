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

void add_given_rows(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  const int64_t from = x_stride(a, a.k), to = out_stride(a, a.k), width = step.given_width[a.n];
  for (int64_t t = begin; t < end; t++) {
    const float* x = (const float*)a.x + t * from;
    float* out = (float*)a.out + t * to;
    const int64_t row = step.given_rows ? step.given_rows[t] : -1;
    if (row < 0) memcpy(out, x, a.k * sizeof(float));
    else
      for (int64_t e = 0; e < a.k; e++) out[e] = x[e] + step.given[a.n][row * width + e];
  }
}

// One unit for all levels, as of gather: a sum of two numbers is the same in any of them.
constexpr Variant kVariants[] = {ALBIREO_SAME_AT_EVERY_LEVEL(given, given_rows)};
constexpr Variant kAddVariants[] = {ALBIREO_SAME_AT_EVERY_LEVEL(add_given, add_given_rows)};
}  // namespace
const Family kGiven{"given", items, scratch_bytes, kVariants};
const Family kAddGiven{"add_given", items, scratch_bytes, kAddVariants};
}  // namespace albireo
