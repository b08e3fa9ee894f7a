#include "kernels/selective_state/selective_state.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * a.num_heads * column_blocks(a); }
int64_t scratch_bytes(const Args& a) { return a.k_dim * kStateColumns * (int64_t)sizeof(float); }

constexpr Variant kVariants[] = {
    {"selective_state", "any", "avx512", selective_state_avx512},
    {"selective_state", "any", "avx2", selective_state_avx2},
    {"selective_state", "any", "scalar", selective_state_scalar},
};
}  // namespace
const Family kSelectiveState{"selective_state", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
