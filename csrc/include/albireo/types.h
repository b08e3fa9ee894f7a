// Element types, step arrays and small enums shared by every unit. Plain data only: this header is included by
// units compiled for different ISA levels, so it must define no function that is not trivially constexpr.
#pragma once
#include <cstddef>
#include <cstdint>

namespace albireo {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

// Numbers, then activations with a scale a token (tokens.h), then weights in few bits (kernels/pack/encoded.h).
enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kInt8Token = 3,
  kInt8 = 4,       // a scale a column
  kInt8Group = 5,  // a scale and a zero, or an offset, for each group of k
  kInt4Group = 6,
  kInt4Progressive = 7,
  kFp4 = 8,  // a byte's scale for each group of k, and one a column
  kFp8 = 9,
  kQ2K = 10,  // a byte's scale, and offset, for each group of k, and one of these for each 256
  kQ3K = 11,
  kQ4K = 12,
  kQ5K = 13,
  kQ6K = 14,
  kIQ4XS = 15,  // from here on without offsets: codes stand for numbers of a table
  kIQ3XXS = 16,
  kIQ3S = 17,
  kIQ2XXS = 18,
  kIQ2S = 19,
  kIQ1S = 20,
  kIQ1M = 21,
};
constexpr bool is_nested(DType t) { return t >= DType::kQ2K && t <= DType::kIQ1M; }
constexpr bool is_integer(DType t) { return (t >= DType::kInt8 && t <= DType::kFp4) || is_nested(t); }

constexpr int64_t kPanel = 64;     // output columns of a weight panel
constexpr int64_t kSubPanel = 16;  // columns of a sub-panel: contiguous over K, one vector a step
constexpr int64_t kSubPanels = kPanel / kSubPanel;
constexpr int64_t kGateUpInterleave = 32;  // gate columns, then up columns, half a panel each
constexpr int64_t kAttentionTile = 128;    // KV positions handled at once; tiles start at multiples of it
constexpr int64_t kAttentionSubs = kAttentionTile / 16;
constexpr int64_t kAttentionSegment = 1024;  // softmax state is merged at multiples of it: fixed, so bits are
constexpr int64_t kTopMost = 65;             // most logits of a row that head_top finds
constexpr int64_t kMaxRanks = 8;             // ranks that compute one model together; also the leaves of a tree of sums
constexpr int64_t kFewRows = 8;              // most rows that threads norm each for themselves
constexpr int64_t kRowChunk = 96;            // rows of C kept hot between the K loop and the epilogue: about so many,
constexpr int64_t kMostChunk = 112;          // and no more than these

// Codes that a KV cache may hold, with a scale a head.
constexpr bool is_code(DType t) { return t == DType::kInt8 || t == DType::kFp8; }
constexpr int64_t dtype_size(DType t) { return t == DType::kF32 ? 4 : t <= DType::kBF16 ? 2 : 1; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Sequences that attention takes together: order[first] .. order[first + count] of the step. The first shared_blocks of
// their block tables are the same, and each has computed so many positions before this step; tokens is their sum.
// parts: into how many its positions are cut at most, so that threads have enough to do: see attention.h.
struct SharingGroup {
  int64_t first, count, tokens, shared_blocks, computed;
  int64_t parts = 1;
};

// One step's inputs. T tokens of B sequences; R rows want logits, G rows want their best few. These leave the model:
// the S = R + G rows are logit_rows, then top_rows. Layers of one block group have slots and block tables of their own;
// a kernel is given the step of its group, whose are the first.
constexpr int64_t kMostGiven = 12;

struct Step {
  const int32_t* token_ids;    // [T]
  const int32_t* positions;    // [T]
  const int32_t* slots;        // [kv_groups, T] block * block_size + offset
  const int32_t* query_start;  // [B + 1] rows of sequence b: query_start[b] .. query_start[b + 1]
  const int32_t* context_len;  // [B] KV positions valid after this step
  const int32_t* block_table;  // [kv_groups, B, max_blocks]
  const int32_t* logit_rows;   // [R]
  const int32_t* top_rows;     // [G]
  const int32_t* top_counts;   // [G] how many of its best a row wants: 1 to kTopMost
  int64_t T, B, R, G, max_blocks;
  int64_t kv_groups = 1;
  const int32_t* adapter_slots = nullptr;   // [T] slot of the row's adapter, -1: none; read by programs with adapters
  const int32_t* state_slots = nullptr;     // [B] what each sequence keeps is there; read by programs with states
  const int32_t* snapshot_slots = nullptr;  // [B] what it keeps behind snapshot_rows of its rows goes there, too
  const int32_t* snapshot_rows = nullptr;   // [B] 0: nowhere; none: no sequence's does
  const int32_t* token_types = nullptr;     // [T] of the first or the second of two texts; none: all of the first
  const float* given[kMostGiven] = {};      // rows that come with the step: [rows, given_width], see embed.h, given.h
  int64_t given_width[kMostGiven] = {};
  const int32_t* given_rows = nullptr;      // [T] row of given[0] that a token's embedding is, -1: it has its own
  const int32_t* row_ends = nullptr;        // [T] behind the last position a row sees, where that is behind its own
  const int32_t* rope_positions = nullptr;  // [T] positions by which rows are rotated; none: their own
  const float* rope_rows = nullptr;         // [T][2][D/2] cosines and sines in place of the tables'; see rope_row()
  const int32_t* sequences = nullptr;       // [B] row of block_table of each; none: row b. See leaving_rows.h
  const int32_t* whole_len = nullptr;       // context_len of the step that sequences are rows of
  const int32_t* order;                     // [B] sequences, those of a group side by side
  const SharingGroup* groups;               // [num_groups]
  int64_t num_groups;
  float* part_sums = nullptr;     // what parts of attention leave for the last of them
  int32_t* parts_done = nullptr;  // of each whole; 0 between calls
  int64_t P = 0;  // pairs of a token and one of its experts: pair t * top_k + j is token t's j-th choice
};

// Blocks of sequence b of a step. static: no ISA level may end up with the code of another.
static constexpr const int32_t* table_of(const Step& s, int64_t b) {
  return s.block_table + (s.sequences ? s.sequences[b] : b) * s.max_blocks;
}

// Positions of sequence b, also those behind the rows of a step that leaving_rows.h made.
static constexpr int64_t whole_context(const Step& s, int64_t b) {
  return s.sequences ? s.whole_len[s.sequences[b]] : s.context_len[b];
}

// Which row count a call runs over.
enum class Rows : int32_t { kT = 0, kR = 1, kG = 2, kS = 3, kP = 4 };
constexpr int64_t count_rows(const Step& s, Rows r) {
  return r == Rows::kT ? s.T : r == Rows::kR ? s.R : r == Rows::kG ? s.G : r == Rows::kP ? s.P : s.R + s.G;
}

// What says which row of a table an embedding is.
enum class IdsOf : int32_t { kTokens = 0, kPositions = 1, kTypes = 2 };

// Which row of x row i of a call is made of: row i, the row of T the step says, or its place among the S rows.
enum class Gather : int32_t { kNone = 0, kOfT = 1, kOfS = 2 };
// static: no ISA level may end up with the code of another.
static constexpr int64_t gathered_row(const Step& s, Rows r, Gather from, int64_t i) {
  if (from == Gather::kNone || r == Rows::kT) return i;
  if (from == Gather::kOfS) return r == Rows::kG ? s.R + i : i;
  if (r == Rows::kS) return i < s.R ? s.logit_rows[i] : s.top_rows[i - s.R];
  return r == Rows::kR ? s.logit_rows[i] : s.top_rows[i];
}

// Shape of the paged KV cache of one layer. A block of P positions and one head holds, per sub-block of S = min(P, 16)
// positions, K then V, each S * Dp elements (Dp = head size padded to 16):
//   bf16       K [Dp/2][S][2]   V [S/2][Dp][2]     pairs, as dot products of pairs want them
//   f32, f16   K [Dp][S]        V [S][Dp]
//   codes      as bf16, a byte an element, then the float32 scales of K [S] and of V [S]: a number is code * scale
// Where values are the first channels of keys there is K alone, and no codes.
// every: so many positions, a power of two, have one entry, which is there when the last of them is: of K alone. A
// block has room for those that end in it, P / every, or one. Entry e is that of positions every * e to every * e +
// every - 1. stride: bytes from a block to the next, where those of other layers lie between; 0: none do.
struct KVShape {
  DType dtype;
  int64_t num_kv_heads, head_dim, padded_head_dim, block_size;
  bool has_values = true;
  int64_t every = 1;
  int64_t stride = 0;
};
constexpr int64_t block_entries(const KVShape& s) { return s.block_size > s.every ? s.block_size / s.every : 1; }
constexpr int64_t sub_block(const KVShape& s) { return block_entries(s) < 16 ? block_entries(s) : 16; }
constexpr int64_t sub_block_bytes(const KVShape& s) {
  return (s.has_values ? 2 : 1) * sub_block(s) *
         (s.padded_head_dim * dtype_size(s.dtype) + (is_code(s.dtype) ? (int64_t)sizeof(float) : 0));
}
constexpr int64_t block_head_bytes(const KVShape& s) { return block_entries(s) / sub_block(s) * sub_block_bytes(s); }
constexpr int64_t block_bytes(const KVShape& s) { return s.num_kv_heads * block_head_bytes(s); }
constexpr int64_t block_stride(const KVShape& s) { return s.stride ? s.stride : block_bytes(s); }

}  // namespace albireo
