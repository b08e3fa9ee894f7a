#include "kernels/head_top/head_top.h"

#include <cstring>

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return ceil_div(a.n, kPanel) * num_slabs(count_rows(s, a.rows)); }
int64_t scratch_bytes(const Args& a) { return kRowChunk * kPanel * 4 + activation_copy_bytes(a.k); }

constexpr Variant kVariants[] = {
    {"head_top", "bfloat16", "avx512bf16", head_top_avx512bf16},
    {"head_top", "any", "avx512", head_top_avx512},
    {"head_top", "any", "avx2", head_top_avx2},
    {"head_top", "any", "scalar", head_top_scalar},
};
}  // namespace

const Family kHeadTop{"head_top", items, scratch_bytes, kVariants, 4};

void unpack_top_keys(const uint64_t* keys, int64_t count, int32_t* ids, float* values) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits = (uint32_t)(keys[i] >> 32);
    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    memcpy(values + i, &bits, 4);
    ids[i] = (int32_t)(0xffffffffu - (uint32_t)keys[i]);
  }
}
}  // namespace albireo
