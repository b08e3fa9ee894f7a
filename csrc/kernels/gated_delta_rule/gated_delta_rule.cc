#include "kernels/gated_delta_rule/gated_delta_rule.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * a.num_heads * column_blocks(a); }
// Columns of a state, a query and a key; what channels keep, and what of it meets a key.
int64_t scratch_bytes(const Args& a) {
  return (a.k_dim * kStateColumns + 4 * round_up(a.k_dim, 16)) * (int64_t)sizeof(float);
}

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(gated_delta_rule)};
}  // namespace
const Family kGatedDeltaRule{"gated_delta_rule", items, scratch_bytes, kVariants};
}  // namespace albireo
