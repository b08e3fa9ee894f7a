#include "kernels/join_heads/join_heads.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"join_heads", "any", "avx512", join_heads_avx512},
    {"join_heads", "any", "avx2", join_heads_avx2},
    {"join_heads", "any", "scalar", join_heads_scalar},
};
}  // namespace
const Family kJoinHeads{"join_heads", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
