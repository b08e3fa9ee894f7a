#include "kernels/selective_scan/selective_scan.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * column_blocks(a); }
int64_t scratch_bytes(const Args& a) { return 3 * a.k_dim * kStateColumns * (int64_t)sizeof(float); }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(selective_scan)};
}  // namespace
const Family kSelectiveScan{"selective_scan", items, scratch_bytes, kVariants};
}  // namespace albireo
