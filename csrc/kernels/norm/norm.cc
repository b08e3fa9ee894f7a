#include "kernels/norm/norm.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args& a) { return a.out_dtype == DType::kInt8Token ? round_up(a.k, 16) * 4 : 0; }

constexpr Variant kVariants[] = {
    {"norm", "any", "avx512", norm_avx512},
    {"norm", "any", "avx2", norm_avx2},
    {"norm", "any", "scalar", norm_scalar},
};
}  // namespace
const Family kNorm{"norm", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
