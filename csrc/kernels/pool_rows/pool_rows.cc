#include "kernels/pool_rows/pool_rows.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * column_blocks(a); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(pool_rows)};
}  // namespace
const Family kPoolRows{"pool_rows", items, scratch_bytes, kVariants};
}  // namespace albireo
