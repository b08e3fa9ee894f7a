#include "kernels/gate_rows/gate_rows.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * ceil_div(a.n, kGateColumns); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"gate_rows", "any", "avx512", gate_rows_avx512},
    {"gate_rows", "any", "avx2", gate_rows_avx2},
    {"gate_rows", "any", "scalar", gate_rows_scalar},
};
}  // namespace
const Family kGateRows{"gate_rows", items, scratch_bytes, kVariants, sizeof(kVariants) / sizeof(kVariants[0])};
}  // namespace albireo
