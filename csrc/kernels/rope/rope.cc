#include "kernels/rope/rope.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"rope", "any", "avx512", rope_avx512},
    {"rope", "any", "avx2", rope_avx2},
    {"rope", "any", "scalar", rope_scalar},
};
}  // namespace
const Family kRope{"rope", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
