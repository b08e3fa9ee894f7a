#include "kernels/selective_state/selective_state.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * a.num_heads * column_blocks(a); }
int64_t scratch_bytes(const Args& a) { return a.k_dim * kStateColumns * (int64_t)sizeof(float); }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(selective_state)};
}  // namespace
const Family kSelectiveState{"selective_state", items, scratch_bytes, kVariants};
}  // namespace albireo
