#include "kernels/head_top/head_top.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) {
  return ceil_div(a.n, kPanel) * Slabs(count_rows(s, a.rows), a.tuning.slab_rows).count;
}
int64_t scratch_bytes(const Args& a) { return kMostChunk * kPanel * 4 + product_scratch_bytes(a); }

float value_of(uint64_t key) {
  uint32_t bits = (uint32_t)(key >> 32);
  bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

constexpr Variant kVariants[] = {
#if defined(__x86_64__)
    {"head_top", "integers", "amx", head_top_amx},
    {"head_top", "bfloat16", "amx", head_top_bf16_amx},
    {"head_top", "fp8", "amx", head_top_bf16_amx},
    {"head_top", "bfloat16", "avx512bf16", head_top_avx512bf16},
    {"head_top", "fp8", "avx512bf16", head_top_avx512bf16},
    {"head_top", "integers", "avx512vnni", head_top_avx512vnni},
    {"head_top", "any", "avx512", head_top_avx512},
    {"head_top", "integers", "avxvnni", head_top_avxvnni},
    {"head_top", "any", "avx2", head_top_avx2},
#elif defined(__aarch64__)
    {"head_top", "integers", "neonmm", head_top_integers_neonmm},
    {"head_top", "bfloat16", "neonmm", head_top_neonmm},
    {"head_top", "fp8", "neonmm", head_top_neonmm},
    {"head_top", "integers", "neondot", head_top_neondot},
    {"head_top", "any", "neon", head_top_neon},
#endif
    {"head_top", "any", "scalar", head_top_scalar},
};
}  // namespace

const Family kHeadTop{"head_top", items, scratch_bytes, kVariants, 4};

TopLists::TopLists(int64_t threads, int64_t max_rows)
    : threads(threads), rows(max_rows), memory(threads * std::max<int64_t>(1, max_rows) * (int64_t)sizeof(TopList)) {
  lists = (TopList*)memory.data();
}

void TopLists::clear(int64_t count) {
  for (int64_t t = 0; t < threads; t++)
    for (int64_t i = 0; i < count; i++) {
      TopList& l = list(t, i);
      l.floor = 0, l.floor_value = -std::numeric_limits<float>::infinity(), l.count = 0;
    }
}

void TopList::shrink(int64_t wanted) {
  if (count <= wanted) return;
  std::nth_element(keys, keys + wanted - 1, keys + count, std::greater<uint64_t>());
  count = (int32_t)wanted;
  floor = keys[wanted - 1];
  floor_value = value_of(floor);
}

void TopLists::best(const Step& step, int32_t* ids, float* values) {
  std::vector<uint64_t> keys;
  for (int64_t g = 0; g < step.G; g++) {
    keys.clear();
    for (int64_t t = 0; t < threads; t++) keys.insert(keys.end(), list(t, g).keys, list(t, g).keys + list(t, g).count);
    const int64_t found = std::min<int64_t>((int64_t)keys.size(), step.top_counts[g]);
    std::partial_sort(keys.begin(), keys.begin() + found, keys.end(), std::greater<uint64_t>());
    for (int64_t i = 0; i < kTopMost; i++) {
      ids[g * kTopMost + i] = i < found ? (int32_t)(0xffffffffu - (uint32_t)keys[i]) : -1;
      values[g * kTopMost + i] = i < found ? value_of(keys[i]) : -std::numeric_limits<float>::infinity();
    }
  }
}
}  // namespace albireo
