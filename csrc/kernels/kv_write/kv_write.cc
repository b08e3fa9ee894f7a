#include "kernels/kv_write/kv_write.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args& a) { return a.kv_shape.padded_head_dim * (int64_t)sizeof(float); }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(kv_write)};
}  // namespace
const Family kKvWrite{"kv_write", items, scratch_bytes, kVariants};
}  // namespace albireo
