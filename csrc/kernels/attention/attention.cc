#include "kernels/attention/attention.h"

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) {
  int64_t items = 0;
  for (int64_t g = 0; g < s.num_groups; g++) items += group_items(a, s, s.groups[g]);
  return items * a.kv_shape.num_kv_heads;
}

}  // namespace

PartRoom part_room(const Args& a, const Step& s) {
  PartRoom room;
  for (int64_t i = 0; i < s.num_groups; i++) {
    const SharingGroup& g = s.groups[i];
    if (parts_of(a, s, g) == 1) continue;
    const int64_t wholes = group_wholes(a, s, g) * a.kv_shape.num_kv_heads;
    room.wholes += wholes, room.sums += wholes * whole_sums(a, s, g);
  }
  return room;
}

namespace {
int64_t scratch_bytes(const Args& a) {
  const int64_t Dp = a.kv_shape.padded_head_dim;
  const int64_t per_row = 56 + Dp * 4 /* q */ + 2 * kAttentionTile * 4 /* scores, p */ + 2 * Dp * 4 /* outputs */ +
                          16 * 4 /* lanes of l */ +
                          10 * 4 /* m, l, correction of segment and whole, scales, sink, slope */;
  const int64_t of_distances = a.num_distances ? a.num_heads / a.kv_shape.num_kv_heads * (a.num_distances + 30) * 4 : 0;
  const int64_t of_token = a.ids ? a.num_heads / a.kv_shape.num_kv_heads : 0;
  return (of_token > kManyRows ? of_token : kManyRows) * per_row + of_distances +
         2 * kAttentionTile * Dp * 4 /* joined small blocks */ + 1024;
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"attention", "bfloat16", "amx", attention_amx},  {"attention", "bfloat16", "avx512bf16", attention_avx512bf16},
    {"attention", "any", "avx512", attention_avx512}, {"attention", "any", "avx2", attention_avx2},
#elif defined(__aarch64__)
    {"attention", "bfloat16", "neonmm", attention_neonmm},
    {"attention", "any", "neon", attention_neon},
#endif
    {"attention", "any", "scalar", attention_scalar}, {"attention", "bfloat16", "amx_model", attention_amx_model},
};
}  // namespace
const Family kAttention{"attention", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
