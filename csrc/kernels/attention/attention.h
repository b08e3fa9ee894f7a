// Attention of this step's rows over their sequences' paged KV caches: decode, prefill and mixed steps alike.
// out[t, h] = sum_s softmax_s(scale * q[t, h] . k[s, h']) v[s, h']   for positions s <= position of t (and, with a
// window w > 0, s > position - w; where row_ends says so, up to there); h' = h / (H / K). both_ways: of all positions
// of the sequence, all of which the step has (with a window, |s - position| < w); -1: of none behind, whatever row_ends
// says. first_key: s >= first_key, too. num_keys: s < num_keys, wherever the row is (and s < row_ends,
// where that says so), and nothing else is asked.
// in_chunks: instead of s > position - w, s >= the last multiple of w that is not behind position.
//   x, out: [T, H * D] x_dtype, out_dtype; scores float32. Of the
// rows that leave the model only, out is [S, H * D], x too unless they are gathered; the step is that of
// leaving_rows.h. value_dim: v is the first so many channels of k, and out [T, H * value_dim]. result_dim: likewise
// of values that are stored. sinks: of each head one
// more score in the softmax of its rows, for which there is no v. distances: [num_distances, H], odd many: what is
// added to a score (scaled, not capped) by s - position, less than half of them before and behind; farther off the
// ends. slopes: [H] what is added to a score (scaled, not capped): slopes[h] * (s - position of t). ids: of each of T
// rows, y_stride apart, n positions in ascending order, -1 behind the last: the row sees these alone. Where a sequence
// has no more than n, it sees all, with the same bits: a list is walked in the same tiles. num_k_heads: so many lists,
// one behind the other, each of a KV head; 0: one for all.
// Of a cache whose entries are of several positions a row sees those whose last position is not behind its own; ids are
// of entries. sums: out is [T, H * (value_dim + 2)], of each head sum_s 2^(log2(e) * score_s - m) v[s], not divided,
// then m, the largest of what is in the exponent (-1e30 where a row sees nothing), then the sum without v: what
// join_sums makes one attention of. There are no sinks then.
// from_rows, and maybe from_keys: [T, H * num_columns] what is added to a score before it is scaled, and capped:
// from_rows of the row, and, of rows that see both ways, from_keys of the token at s, each at head h and column
// columns[position of t - s], less than reach either way and the ends beyond.
//
// The KV cache may be of another type than x; how codes are multiplied with is in tile.inl.
// Why the bits do not depend on the batch, on chunking or on threads: positions are handled in tiles of 128 that
// start at multiples of 128; the softmax state is closed and merged at multiples of 1024; a score is one chain over D,
// an output one chain over the tile's positions; a masked position adds an exact zero. A work item is 48 rows, of a
// long prompt 96, of one KV head and one group of sequences (groups.h), mostly of one; rows are (token, query head that
// shares the KV head), so K and V are read once for all of them. Where that gives threads too little to do, as few
// sequences of many positions do, an item is part of one: some of its segments, each of which is left as it was closed,
// and whoever finishes the last part merges them all, in the same order. What all sequences of an item have in the same
// blocks is handled first, for all rows at once, then the rest of each. Source: Dao 2022 (online softmax); A.6 of the
// kernel design. Reads: x kv kv_shape out sinks distances num_distances slopes from_rows from_keys columns num_columns
// reach num_heads window in_chunks both_ways first_key num_keys num_k_heads scale softcap value_dim result_dim sums ids
// n y_stride x_dtype out_dtype rows gather.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kAttentionRows = 48;
constexpr int64_t kManyRows = 96, kManyItems = 128;
constexpr int64_t kManyTokens = 16;
// Rows of an item of a group: keys and values are read once for all of them, so more where that leaves many items.
static constexpr int64_t item_rows(const Args& a, const SharingGroup& g) {
  const int64_t rows = g.tokens * (a.num_heads / a.kv_shape.num_kv_heads);
  return ceil_div(rows, kManyRows) * a.kv_shape.num_kv_heads >= kManyItems ? kManyRows : kAttentionRows;
}
// static: no ISA level may end up with the code of another. What a row has chosen for a KV head.
static constexpr const int32_t* list_of(const Args& a, int64_t row, int64_t kv_head) {
  const int64_t lists = a.num_k_heads ? a.num_k_heads : 1;
  return a.ids + row * (a.y_stride ? a.y_stride : lists * a.n) + (a.num_k_heads ? kv_head * a.n : 0);
}
// How many positions of a list of n there are: behind the last they are -1.
static constexpr int64_t listed(const int32_t* list, int64_t n) {
  int64_t low = 0, high = n;  // of these numbers of them one is right
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (list[middle] < 0) high = middle;
    else low = middle + 1;
  }
  return low;
}
// Whether rows of a group see chosen positions: else they see all, and a list would say so.
static constexpr bool sees_chosen(const Args& a, const Step& s, const SharingGroup& g) {
  return a.ids && s.context_len[s.order[g.first]] / a.kv_shape.every > a.n;
}
// Heads of a token that are an item where rows see chosen positions: keys are put side by side once for all of them, so
// they are all where tokens give threads enough to do.
static constexpr int64_t chosen_rows(const Args& a, const Step& s) {
  return s.T >= kManyTokens ? a.num_heads / a.kv_shape.num_kv_heads : kAttentionRows;
}
// Wholes of a group for each KV head: of one part each, unless parts_of() says more.
static constexpr int64_t group_wholes(const Args& a, const Step& s, const SharingGroup& g) {
  const int64_t per_token = a.num_heads / a.kv_shape.num_kv_heads;
  if (sees_chosen(a, s, g)) return g.tokens * ceil_div(per_token, chosen_rows(a, s));
  return ceil_div(g.tokens * per_token, item_rows(a, g));
}
// Segments of the positions of a group's one sequence, at most.
static constexpr int64_t most_segments(const Args& a, const Step& s, const SharingGroup& g) {
  const int64_t context = ceil_div(whole_context(s, s.order[g.first]), a.kv_shape.every);
  const int64_t entries = context < a.num_keys ? a.num_keys : context;
  const int64_t near = a.window > 0 && !s.row_ends ? 2 * a.window + g.tokens + kAttentionSegment : entries;
  return ceil_div(near < entries ? near : entries, kAttentionSegment);
}
static constexpr int64_t parts_of(const Args& a, const Step& s, const SharingGroup& g) {
  if (g.parts == 1 || g.count > 1 || sees_chosen(a, s, g)) return 1;
  const int64_t most = most_segments(a, s, g);
  return g.parts < most ? g.parts : most < 1 ? 1 : most;
}
static constexpr int64_t group_items(const Args& a, const Step& s, const SharingGroup& g) {
  return group_wholes(a, s, g) * parts_of(a, s, g);
}
// Numbers that parts leave of a whole: of each segment its rows' sums, maxima and sums of exponentials.
static constexpr int64_t part_rows(const Args& a, const SharingGroup& g) {
  const int64_t rows = g.tokens * (a.num_heads / a.kv_shape.num_kv_heads);
  return rows < item_rows(a, g) ? rows : item_rows(a, g);
}
static constexpr int64_t part_width(const Args& a) {
  return round_up(a.value_dim ? a.value_dim : a.kv_shape.head_dim, 16) + 2;
}
static constexpr int64_t whole_sums(const Args& a, const Step& s, const SharingGroup& g) {
  return round_up(most_segments(a, s, g) * part_rows(a, g) * part_width(a), 16);
}
// What a call needs of a step's part_sums and parts_done.
struct PartRoom {
  int64_t sums = 0, wholes = 0;
};
PartRoom part_room(const Args& a, const Step& s);
void attention_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_amx_model(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void attention_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kAttention;
}  // namespace albireo
