#include "kernels/linear/linear.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) {
  return linear_panels(a) * Slabs(count_rows(s, a.rows), a.tuning.slab_rows).count;
}
int64_t scratch_bytes(const Args& a) {
  return kDeepPanels * kDeepChunks * kMostChunk * kPanel * 4 + product_scratch_bytes(a);
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"linear", "integers", "amx", linear_amx},
    {"linear", "bfloat16", "amx", linear_bf16_amx},
    {"linear", "fp8", "amx", linear_bf16_amx},
    {"linear", "bfloat16", "avx512bf16", linear_avx512bf16},
    {"linear", "fp8", "avx512bf16", linear_avx512bf16},
    {"linear", "integers", "avx512vnni", linear_avx512vnni},
    {"linear", "any", "avx512", linear_avx512},
    {"linear", "integers", "avxvnni", linear_avxvnni},
    {"linear", "any", "avx2", linear_avx2},
#elif defined(__aarch64__)
    {"linear", "integers", "neonmm", linear_integers_neonmm},
    {"linear", "bfloat16", "neonmm", linear_neonmm},
    {"linear", "fp8", "neonmm", linear_neonmm},
    {"linear", "integers", "neondot", linear_neondot},
    {"linear", "any", "neon", linear_neon},
#endif
    {"linear", "any", "scalar", linear_scalar},
    // Of no level that a machine has, so never chosen: what tests run.
    {"linear", "integers", "amx_model", linear_amx_model},
    {"linear", "bfloat16", "amx_model", linear_amx_model},
    {"linear", "fp8", "amx_model", linear_amx_model},
};
}  // namespace
const Family kLinear{"linear", items, scratch_bytes, kVariants, 4};
}  // namespace albireo
