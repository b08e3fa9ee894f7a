#include "kernels/kv_write/kv_write.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args& a) { return a.kv_shape.padded_head_dim * (int64_t)sizeof(float); }

constexpr Variant kVariants[] = {
    {"kv_write", "any", "avx512", kv_write_avx512},
    {"kv_write", "any", "avx2", kv_write_avx2},
    {"kv_write", "any", "scalar", kv_write_scalar},
};
}  // namespace
const Family kKvWrite{"kv_write", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
