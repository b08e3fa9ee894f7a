#include "kernels/head_linear/head_linear.h"

#include "kernels/linear/linear.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) {
  return a.num_heads * linear_panels(a) * Slabs(count_rows(s, a.rows), a.tuning.slab_rows).count;
}
int64_t scratch_bytes(const Args& a) { return kMostChunk * kPanel * 4 + product_scratch_bytes(a); }

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"head_linear", "bfloat16", "amx", head_linear_bf16_amx},
    {"head_linear", "bfloat16", "avx512bf16", head_linear_avx512bf16},
    {"head_linear", "any", "avx512", head_linear_avx512},
    {"head_linear", "any", "avx2", head_linear_avx2},
#elif defined(__aarch64__)
    {"head_linear", "bfloat16", "neonmm", head_linear_neonmm},
    {"head_linear", "any", "neon", head_linear_neon},
#endif
    {"head_linear", "any", "scalar", head_linear_scalar},
};
}  // namespace
const Family kHeadLinear{"head_linear", items, scratch_bytes, kVariants};
}  // namespace albireo
