#include "kernels/choose_keys/choose_keys.h"

namespace albireo {
namespace {
int64_t items(const Args&, const Step& s) { return s.T; }

int64_t scratch_bytes(const Args& a) {
  const int64_t Dp = a.kv_shape.padded_head_dim;
  const int64_t of_heads = a.num_heads * (Dp + kAttentionTile) * 4;  // queries, and their scores with a tile
  return of_heads + chosen_bytes(a) + 2 * kAttentionTile * Dp * 4 /* joined blocks */ + 1024;
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"choose_keys", "bfloat16", "avx512bf16", choose_keys_avx512bf16},
    {"choose_keys", "any", "avx512", choose_keys_avx512},
    {"choose_keys", "any", "avx2", choose_keys_avx2},
#elif defined(__aarch64__)
    {"choose_keys", "bfloat16", "neonmm", choose_keys_neonmm},
    {"choose_keys", "any", "neon", choose_keys_neon},
#endif
    {"choose_keys", "any", "scalar", choose_keys_scalar},
};
}  // namespace
const Family kChooseKeys{"choose_keys", items, scratch_bytes, kVariants};
}  // namespace albireo
