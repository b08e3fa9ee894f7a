#include "kernels/gate_rows/gate_rows.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * ceil_div(a.n, kGateColumns); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(gate_rows)};
}  // namespace
const Family kGateRows{"gate_rows", items, scratch_bytes, kVariants};
}  // namespace albireo
