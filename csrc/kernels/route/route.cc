#include "kernels/route/route.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
// Scores, merits, and of groups what they are worth and which are kept: none is more than k numbers.
int64_t scratch_bytes(const Args& a) { return round_up(a.k, 16) * 4 * (a.bias || a.num_groups ? 4 : 1); }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(route)};
}  // namespace
const Family kRoute{"route", items, scratch_bytes, kVariants};
}  // namespace albireo
