// A level's attention in bfloat16 held to another one's before it is used: both add in orders of their own, so within a
// bound.
#include <cmath>
#include <cstring>
#include <vector>

#include "albireo/amx.h"
#include "albireo/kernel.h"
#include "albireo/memory.h"
#include "kernels/attention/attention.h"

namespace albireo {
namespace {

// More rows than an item has, of which the last is no whole tile; channels and positions that end inside a depth.
constexpr int64_t kHeads = 3, kDim = 80, kBlock = 16, kContext = 149, kNew = 21, kBlocks = ceil_div(kContext, kBlock);

KernelFn attention_of(const std::string& level) {
  for (int64_t i = 0; i < kAttention.num_variants; i++) {
    const Variant& v = kAttention.variants[i];
    if (level == v.isa && (!strcmp(v.dtype, "bfloat16") || !strcmp(v.dtype, "any"))) return v.run;
  }
  return nullptr;
}

// bfloat16 between 1/2 and 2, of both signs.
void fill(uint16_t* numbers, int64_t count, uint32_t state) {
  for (int64_t i = 0; i < count; i++) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    numbers[i] = (uint16_t)(0x3f00 + (state & 0x80ff));
  }
}

std::vector<float> attended(KernelFn run) {
  std::vector<uint16_t> q(kNew * kHeads * kDim);
  std::vector<float> out(kNew * kHeads * kDim);
  std::vector<int32_t> positions(kNew), table(kBlocks);
  for (int64_t i = 0; i < kNew; i++) positions[i] = (int32_t)(kContext - kNew + i);
  for (int64_t i = 0; i < kBlocks; i++) table[i] = (int32_t)(kBlocks - 1 - i);
  Args a;
  a.kv_shape = {.dtype = DType::kBF16,
                .num_kv_heads = 1,
                .head_dim = kDim,
                .padded_head_dim = round_up(kDim, 16),
                .block_size = kBlock};
  Memory kv(kBlocks * block_stride(a.kv_shape)), scratch(kAttention.scratch_bytes(a));
  fill(q.data(), (int64_t)q.size(), 1);
  fill((uint16_t*)kv.data(), kBlocks * block_stride(a.kv_shape) / 2, 2);
  a.x = q.data(), a.out = out.data(), a.kv = kv.data(), a.x_dtype = DType::kBF16;
  a.num_heads = kHeads, a.scale = 0.1f;
  const int32_t start[] = {0, (int32_t)kNew}, context = kContext, order = 0;
  const SharingGroup group{0, 1, kNew, 0, kContext - kNew};
  Step s{};
  s.positions = positions.data(), s.query_start = start, s.context_len = &context, s.block_table = table.data();
  s.T = kNew, s.B = 1, s.max_blocks = kBlocks, s.order = &order, s.groups = &group, s.num_groups = 1;
  Scratch own{scratch.data(), scratch.bytes()};
  run(a, s, 0, kAttention.items(a, s), own);
  return out;
}

}  // namespace

std::string attention_difference(const std::string& level, const std::string& trusted, float bound) {
  const KernelFn kernels[] = {attention_of(level), attention_of(trusted)};
  if (!kernels[0] || !kernels[1]) return "no attention of level " + (kernels[0] ? trusted : level);
  const std::vector<float> found = attended(kernels[0]), wanted = attended(kernels[1]);
  for (size_t i = 0; i < found.size(); i++)
    if (!(std::fabs(found[i] - wanted[i]) <= bound))
      return "attention: row " + std::to_string(i / kDim) + ", channel " + std::to_string(i % kDim) + " is " +
             std::to_string(found[i]) + ", not " + std::to_string(wanted[i]);
  return "";
}

}  // namespace albireo
