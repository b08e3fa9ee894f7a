#include "kernels/top/top.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * top_chunks(a); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"top", "any", "avx512", top_avx512},
    {"top", "any", "avx2", top_avx2},
    {"top", "any", "scalar", top_scalar},
};
}  // namespace
const Family kTop{"top", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
