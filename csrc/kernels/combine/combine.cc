#include "kernels/combine/combine.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * ceil_div(a.n, kCombineColumns); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(combine)};
}  // namespace
const Family kCombine{"combine", items, scratch_bytes, kVariants};
}  // namespace albireo
