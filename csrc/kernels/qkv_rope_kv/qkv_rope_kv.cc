#include "kernels/qkv_rope_kv/qkv_rope_kv.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return qkv_groups(a) * Slabs(s.T, a.tuning.slab_rows).count; }
int64_t scratch_bytes(const Args& a) {
  const int64_t columns = group_panels(a.kv_shape.head_dim) * kPanel;
  int64_t product = product_scratch_bytes(a);
  if (a.v_weight && product_scratch_bytes(of_v(a)) > product) product = product_scratch_bytes(of_v(a));
  return (kMostChunk * columns + a.kv_shape.padded_head_dim) * 4 + product;
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"qkv_rope_kv", "integers", "amx", qkv_rope_kv_amx},
    {"qkv_rope_kv", "bfloat16", "amx", qkv_rope_kv_bf16_amx},
    {"qkv_rope_kv", "fp8", "amx", qkv_rope_kv_bf16_amx},
    {"qkv_rope_kv", "bfloat16", "avx512bf16", qkv_rope_kv_avx512bf16},
    {"qkv_rope_kv", "fp8", "avx512bf16", qkv_rope_kv_avx512bf16},
    {"qkv_rope_kv", "integers", "avx512vnni", qkv_rope_kv_avx512vnni},
    {"qkv_rope_kv", "any", "avx512", qkv_rope_kv_avx512},
    {"qkv_rope_kv", "integers", "avxvnni", qkv_rope_kv_avxvnni},
    {"qkv_rope_kv", "any", "avx2", qkv_rope_kv_avx2},
#elif defined(__aarch64__)
    {"qkv_rope_kv", "integers", "neonmm", qkv_rope_kv_integers_neonmm},
    {"qkv_rope_kv", "bfloat16", "neonmm", qkv_rope_kv_neonmm},
    {"qkv_rope_kv", "fp8", "neonmm", qkv_rope_kv_neonmm},
    {"qkv_rope_kv", "integers", "neondot", qkv_rope_kv_neondot},
    {"qkv_rope_kv", "any", "neon", qkv_rope_kv_neon},
#endif
    {"qkv_rope_kv", "any", "scalar", qkv_rope_kv_scalar},
    // Of no level that a machine has, so never chosen: what tests run.
    {"qkv_rope_kv", "integers", "amx_model", qkv_rope_kv_amx_model},
    {"qkv_rope_kv", "bfloat16", "amx_model", qkv_rope_kv_amx_model},
    {"qkv_rope_kv", "fp8", "amx_model", qkv_rope_kv_amx_model},
};
}  // namespace
const Family kQkvRopeKv{"qkv_rope_kv", items, scratch_bytes, kVariants, 4};
}  // namespace albireo
