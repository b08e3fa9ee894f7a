#include "kernels/adapter/adapter.h"

namespace albireo {
namespace {
// Row blocks outside, so that a thread that goes on with a block has its rows in scratch.
int64_t items(const Args& a, const Step& s) {
  if (!a.adapters) return 0;
  return ceil_div(count_rows(s, a.rows), kAdapterRows) * adapter_parts(*a.adapters);
}
int64_t scratch_bytes(const Args& a) {
  return a.adapters ? kAdapterRows * a.adapters->leaves * a_stride(*a.adapters) * 4 : 0;
}

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(adapter)};
}  // namespace
const Family kAdapter{"adapter", items, scratch_bytes, kVariants};
}  // namespace albireo
