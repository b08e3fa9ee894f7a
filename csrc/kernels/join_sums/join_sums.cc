#include "kernels/join_sums/join_sums.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(join_sums)};
}  // namespace
const Family kJoinSums{"join_sums", items, scratch_bytes, kVariants};
}  // namespace albireo
