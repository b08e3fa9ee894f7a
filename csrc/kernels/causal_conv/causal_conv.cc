#include "kernels/causal_conv/causal_conv.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return s.B * ceil_div(a.n, kConvChannels); }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"causal_conv", "any", "avx512", causal_conv_avx512},
    {"causal_conv", "any", "avx2", causal_conv_avx2},
    {"causal_conv", "any", "scalar", causal_conv_scalar},
};
}  // namespace
const Family kCausalConv{"causal_conv", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
