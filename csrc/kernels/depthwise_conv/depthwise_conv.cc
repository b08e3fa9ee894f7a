#include "kernels/depthwise_conv/depthwise_conv.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) {
  return ceil_div(s.T, kDepthwiseRows) * ceil_div(a.n, kDepthwiseChannels);
}
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(depthwise_conv)};
}  // namespace
const Family kDepthwiseConv{"depthwise_conv", items, scratch_bytes, kVariants};
}  // namespace albireo
