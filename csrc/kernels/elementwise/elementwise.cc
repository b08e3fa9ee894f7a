#include "kernels/elementwise/elementwise.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args& a) { return a.out_dtype == DType::kInt8Token ? round_up(a.k, 16) * 4 : 0; }

constexpr Variant kVariants[] = {
    {"elementwise", "any", "avx512", elementwise_avx512},
    {"elementwise", "any", "avx2", elementwise_avx2},
    {"elementwise", "any", "scalar", elementwise_scalar},
};
}  // namespace
const Family kElementwise{"elementwise", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
