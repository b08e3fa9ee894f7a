#include "kernels/elementwise/elementwise.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args& a) { return a.out_dtype == DType::kInt8Token ? round_up(a.k, 16) * 4 : 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(elementwise)};
}  // namespace
const Family kElementwise{"elementwise", items, scratch_bytes, kVariants};
}  // namespace albireo
