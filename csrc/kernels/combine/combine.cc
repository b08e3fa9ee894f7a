#include "kernels/combine/combine.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * ceil_div(a.n, kCombineColumns); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"combine", "any", "avx512", combine_avx512},
    {"combine", "any", "avx2", combine_avx2},
    {"combine", "any", "scalar", combine_scalar},
};
}  // namespace
const Family kCombine{"combine", items, scratch_bytes, kVariants, sizeof(kVariants) / sizeof(kVariants[0])};
}  // namespace albireo
