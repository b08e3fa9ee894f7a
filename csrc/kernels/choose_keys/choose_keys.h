// Which positions attention is to see: of each row the n of highest score, its own and those before it, ascending.
//   score[s] = sum over h of gates[t, h] * max(x[t, h] . k[s], 0)
// x: [T, H * D] x_dtype; gates: [T, H] float32 without a gap; k: one head of D, the KV cache's, which is of no codes;
// ids: [T, n] int32, y_stride apart, -1 behind the last where there are fewer. num_keys: most positions of a sequence.
// Of a cache whose entries are of several positions, entries: those whose last position is not behind the row's own.
// window: so many positions are chosen together, from its multiples on, and each head chooses for itself, into H lists
// of n one behind the other: score[s, h] = x[t, h] . k[s], a block is worth the best of those up to the row's own, and
// the first_key last ones are always chosen. n is a multiple of window; there are no gates.
// Without a window and without gates they are all 1. k, where it is more than 1: of each entry its k positions are
// listed, and behind them those of the row that have no entry yet, at most k - 1: of n positions (n - k + 1) / k
// entries are chosen.
//
// A score is one chain over D for each head and one over heads, in float32, and of equals the first are taken: neither
// the batch nor how a prompt is cut changes a choice. A work item is one row. Source: DeepSeek-AI 2025, DeepSeek-V3.2
// (lightning indexer). Reads: x gates kv kv_shape ids n k num_heads num_keys window first_key x_dtype x_stride
// y_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
// What is compared: a score of each position, or what blocks are worth to each head, and the numbers of the best.
static constexpr int64_t chosen_bytes(const Args& a) {
  if (a.window == 0) return round_up(a.num_keys, kAttentionTile) * 4;
  return round_up((a.num_heads * ceil_div(a.num_keys, a.window) + a.n / a.window) * 4, 64);
}
void choose_keys_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void choose_keys_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void choose_keys_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void choose_keys_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void choose_keys_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void choose_keys_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kChooseKeys;
}  // namespace albireo
