#include "kernels/top/top.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * top_chunks(a); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(top)};
}  // namespace
const Family kTop{"top", items, scratch_bytes, kVariants};
}  // namespace albireo
