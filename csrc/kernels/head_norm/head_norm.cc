#include "kernels/head_norm/head_norm.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"head_norm", "any", "avx512", head_norm_avx512},
    {"head_norm", "any", "avx2", head_norm_avx2},
    {"head_norm", "any", "scalar", head_norm_scalar},
};
}  // namespace
const Family kHeadNorm{"head_norm", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
