#include "kernels/attention/groups.h"

#include <algorithm>

#include "kernels/attention/attention.h"

namespace albireo {
namespace {

constexpr int64_t kFewTokens = 8;       // more fill register tiles by themselves
constexpr int64_t kItemsPerThread = 2;  // enough that threads end at about the same time

int64_t tokens_of(const Step& s, int64_t b) { return s.query_start[b + 1] - s.query_start[b]; }
int64_t blocks_of(const Step& s, int64_t b, int64_t block_size) { return ceil_div(s.context_len[b], block_size); }

int64_t common_blocks(const Step& s, int64_t a, int64_t b, int64_t most) {
  return std::mismatch(table_of(s, a), table_of(s, a) + most, table_of(s, b)).first - table_of(s, a);
}

}  // namespace

void SequenceGroups::plan(Step& step, const Args& a, int64_t threads) {
  const int64_t size = a.kv_shape.block_size, per_token = a.num_heads / a.kv_shape.num_kv_heads;
  order_.resize(step.B);
  for (int64_t b = 0; b < step.B; b++) order_[b] = (int32_t)b;
  // Neighbours in the order of their tables share the most.
  std::stable_sort(order_.begin(), order_.end(), [&](int32_t x, int32_t y) {
    return std::lexicographical_compare(table_of(step, x), table_of(step, x) + blocks_of(step, x, size),
                                        table_of(step, y), table_of(step, y) + blocks_of(step, y, size));
  });
  int64_t rows = kAttentionRows;
  const auto items = [&] { return ceil_div(step.T * per_token, rows) * a.kv_shape.num_kv_heads; };
  while (rows > 1 && items() < kItemsPerThread * threads) rows /= 2;
  const int64_t most_tokens = rows == kAttentionRows ? step.T : std::max<int64_t>(1, rows / per_token);

  groups_.clear();
  for (int64_t i = 0; i < step.B; i++) {
    const int64_t b = order_[i], tokens = tokens_of(step, b), computed = step.context_len[b] - tokens;
    const bool sees_all = a.window == 0 && a.kv_shape.every == 1 && (!a.ids || step.context_len[b] <= a.n);
    if (!groups_.empty() && tokens <= kFewTokens && sees_all) {
      SharingGroup& g = groups_.back();
      const int64_t first = order_[g.first], blocks = blocks_of(step, b, size);
      const int64_t most = std::min({g.count == 1 ? blocks_of(step, first, size) : g.shared_blocks, blocks});
      const int64_t shared = common_blocks(step, first, b, most);
      const int64_t usable = std::min(shared * size, std::min(g.computed, computed) + 1) / kAttentionTile;
      const bool first_sees_all = !a.ids || step.context_len[first] <= a.n;
      if (first_sees_all && tokens_of(step, first) <= kFewTokens && usable > 0 && shared * 4 >= blocks &&
          shared * 2 >= (g.count == 1 ? shared : g.shared_blocks) && g.tokens + tokens <= most_tokens) {
        g.count++, g.tokens += tokens, g.shared_blocks = shared, g.computed = std::min(g.computed, computed);
        continue;
      }
    }
    groups_.push_back({i, 1, tokens, 0, computed});
  }
  step.order = order_.data(), step.groups = groups_.data(), step.num_groups = (int64_t)groups_.size();

  // An item's work is about the positions that it reads; a part should be no more than a thread's share of all.
  const auto seen = [&](const SharingGroup& g) {
    return ceil_div(step.context_len[order_[g.first]], a.kv_shape.every);
  };
  int64_t work = 0;
  for (const SharingGroup& g : groups_) work += group_wholes(a, step, g) * a.kv_shape.num_kv_heads * seen(g);
  const int64_t share = std::max(kAttentionSegment, ceil_div(work, kItemsPerThread * threads));
  has_parts_ = false;
  for (SharingGroup& g : groups_) {
    if (threads > 1 && g.count == 1) g.parts = std::max<int64_t>(1, ceil_div(seen(g), share));
    has_parts_ |= g.parts > 1;
  }
}

}  // namespace albireo
