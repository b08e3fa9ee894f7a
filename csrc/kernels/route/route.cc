#include "kernels/route/route.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
// Scores, merits, and of groups what they are worth and which are kept: none is more than k numbers.
int64_t scratch_bytes(const Args& a) { return round_up(a.k, 16) * 4 * (a.bias || a.num_groups ? 4 : 1); }

constexpr Variant kVariants[] = {
    {"route", "any", "avx512", route_avx512},
    {"route", "any", "avx2", route_avx2},
    {"route", "any", "scalar", route_scalar},
};
}  // namespace
const Family kRoute{"route", items, scratch_bytes, kVariants, sizeof(kVariants) / sizeof(kVariants[0])};
}  // namespace albireo
