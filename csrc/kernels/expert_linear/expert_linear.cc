#include "kernels/expert_linear/expert_linear.h"

#include "kernels/linear/linear.h"

namespace albireo {
namespace {
// As many as there are panels of slabs, and more: how many there are is only known once tokens have experts. See
// expert_linear.inl, which gives each item its part of them.
int64_t items(const Args& a, const Step& s) { return linear_panels(a) * most_slabs(a, count_rows(s, a.rows)); }
int64_t scratch_bytes(const Args& a) {
  return kMostChunk * kPanel * 4 + product_scratch_bytes(a) + Pairs::bytes(a) + kPairSlab * gathered_stride(a) + 64;
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"expert_linear", "integers", "amx", expert_linear_amx},
    {"expert_linear", "bfloat16", "amx", expert_linear_bf16_amx},
    {"expert_linear", "fp8", "amx", expert_linear_bf16_amx},
    {"expert_linear", "bfloat16", "avx512bf16", expert_linear_avx512bf16},
    {"expert_linear", "fp8", "avx512bf16", expert_linear_avx512bf16},
    {"expert_linear", "integers", "avx512vnni", expert_linear_avx512vnni},
    {"expert_linear", "any", "avx512", expert_linear_avx512},
    {"expert_linear", "integers", "avxvnni", expert_linear_avxvnni},
    {"expert_linear", "any", "avx2", expert_linear_avx2},
#elif defined(__aarch64__)
    {"expert_linear", "integers", "neonmm", expert_linear_integers_neonmm},
    {"expert_linear", "bfloat16", "neonmm", expert_linear_neonmm},
    {"expert_linear", "fp8", "neonmm", expert_linear_neonmm},
    {"expert_linear", "integers", "neondot", expert_linear_neondot},
    {"expert_linear", "any", "neon", expert_linear_neon},
#endif
    {"expert_linear", "any", "scalar", expert_linear_scalar},
};
}  // namespace
const Family kExpertLinear{"expert_linear", items, scratch_bytes, kVariants};
}  // namespace albireo
