// The uniform kernel signature. The runtime owns the split into items; a kernel owns its items and nothing else.
#pragma once
#include "albireo/tuning.h"
#include "albireo/types.h"

namespace albireo {

struct Adapters;  // adapter.h
struct TopLists;  // kernels/head_top/head_top.h

constexpr int64_t kMaxArgs = 8;

// Arguments of one call, resolved to addresses once, when the program is bound.
// Each family documents which it reads in kernels/<family>/<family>.h.
struct Args {
  const void* x = nullptr;          // input activations
  const void* y = nullptr;          // a second operand, laid out as x
  const void* weight = nullptr;     // packed panels, or a vector, or a table
  const float* bias = nullptr;      // [padded N]; expert_linear: of each expert
  const void* v_weight = nullptr;   // qkv_rope_kv only: v's own panels, where weight has those of q and k alone
  const float* v_bias = nullptr;    // [padded N] of them
  const float* residual = nullptr;  // [M, N], may be out
  void* out = nullptr;
  const float* q_norm = nullptr;     // [padded D]: vectors are readable to a multiple of 16
  const float* k_norm = nullptr;     // [padded D]
  const float* rope = nullptr;       // [positions][2][D/2]: cos, sin
  float* state = nullptr;            // of a recurrence: what each slot keeps, state_size floats apart
  const float* gates = nullptr;      // gated_delta_rule, selective_scan: see there, without a gap; add_parts: coefs
  const float* a_log = nullptr;      // gated_delta_rule, selective_state: [num_heads]; selective_scan: [v_dim, k_dim]
  const float* dt_bias = nullptr;    // likewise; selective_scan: [v_dim]
  const float* dt = nullptr;         // selective_state: [T, num_heads] without a gap
  const float* skip = nullptr;       // selective_state: [num_heads]; selective_scan: [v_dim]
  const float* sinks = nullptr;      // attention: [num_heads] one more score of each row's softmax
  const float* distances = nullptr;  // attention: [num_distances][num_heads] added to scores
  int64_t num_distances = 0;         // an odd number: the middle one is of a row's own position
  const float* slopes = nullptr;     // attention: [num_heads], added to scores, times how far behind; selective_state
  const float* from_rows = nullptr;  // attention: [rows of x][num_heads][num_columns] added to scores by distance
  const float* from_keys = nullptr;  // attention: [T][num_heads][num_columns] of positions seen, or null
  const int32_t* columns = nullptr;  // attention: [2 * reach + 1] which of these, by row - position; beyond, the ends
  int64_t num_columns = 0, reach = 0, row_stride = 0, key_stride = 0;
  char* kv = nullptr;                  // this layer's part of the KV cache
  int64_t kv_group = 0;                // which of the step's block tables its blocks are in
  const Adapters* adapters = nullptr;  // adapter; linear, qkv_rope_kv: of which low holds x A^T
  const float* low = nullptr;          // [rows][targets * max_rank], of rows that have an adapter
  int64_t low_stride = 0;              // elements from row to row of it
  TopLists* top = nullptr;             // the best logits of each of the G rows so far
  KVShape kv_shape{};
  DType x_dtype = DType::kF32, w_dtype = DType::kF32, out_dtype = DType::kF32;
  Rows rows = Rows::kT;
  int32_t act = 0;                // 0 none, 1 silu(gate) * up, 2 gelu_tanh(gate) * up, 3 gelu, 4 gelu_tanh, 5 relu,
                                  // 6 clamped_swiglu(gate, up); elementwise: a Map; convolutions: 0 silu, 1 none;
                                  // gate_rows, route: see there
  Gather gather = Gather::kNone;  // norm, gather: which rows of x
  int32_t packed = 0;             // embed only: 1 = table is in panels
  IdsOf ids_of = IdsOf::kTokens;  // embed only: what rows of the table are of
  int32_t both_ways = 0;          // attention: rows see what comes behind them, too
  int32_t in_chunks = 0;          // attention: 1 = window is the length of chunks, and rows see their own alone
  int32_t centered = 0;           // norm only: 1 = x minus its mean is normed
  int32_t gated = 0;              // causal_conv only: 1 = rows of x have what gates it and what gates out beside it
  int32_t side_by_side = 0;       // rope only: 1 = pairs of channels are neighbours
  int32_t sums = 0;               // attention: 1 = what join_sums reads is given, see there
  int32_t is_private = 0;         // norm only: 1 = the next call alone reads out, see Program::walk
  int64_t n = 0, k = 0;           // linear: columns of weight before act, inner size; norm, gather: k = width
  int64_t group = 0;              // of a weight in few bits: k that share a scale; 0: all
  int32_t affine = 0;             // of such groups: 1 = an offset, not a zero
  DType v_dtype = DType::kF32;    // the same three of v_weight
  int64_t v_group = 0;
  int32_t v_affine = 0;
  int64_t num_heads = 0, window = 0;
  int64_t first_key = 0, num_keys = 0;  // attention: no position before, and all of the first ones whatever the row's
  int64_t state_size = 0, state_slots = 0;        // floats of a slot; how many there are
  int64_t num_k_heads = 0, k_dim = 0, v_dim = 0;  // of a_log's families; num_heads are those of values
  int64_t value_dim = 0;               // attention: values are so many first channels of keys; 0: they are stored
  int64_t result_dim = 0;              // attention: of stored values so many first channels are given; 0: all
  int64_t chunks = 1;                  // linear: equal parts of k that are added as a binary tree; 1: one chain
  int64_t ranks = 0;                   // all_reduce: how many parts there are
  const float* parts[kMaxRanks] = {};  // all_reduce: x of every rank
  int32_t* ids = nullptr;              // [T, top_k] experts of each token: route writes them, expert_linear reads them
  float* pair_weights = nullptr;       // [T, top_k] what each of them counts: route, combine
  int64_t top_k = 0, num_experts = 0;  // of a token; of a layer
  int64_t most_pairs = 0;              // expert_linear: rows P of the largest step
  int32_t of_pairs = 0;                // expert_linear: 1 = x has a row for each pair, 0 = for each token
  int32_t renormalize = 0;             // route: 1 = weights of a token add up to 1
  int32_t sigmoid = 0;                 // route: 1 = scores are sigmoids, not a softmax; 2 = roots of a softplus
  int64_t num_groups = 0, kept_groups = 0, group_best = 0;  // route: see route.h; 0: no groups
  float margin = 0;                                         // route: see route.h; 0: there is none
  int64_t x_stride = 0, out_stride = 0;  // elements from row to row of x, and of out and residual; 0: no gap
  int64_t y_stride = 0;                  // join_heads, add_parts, row_map, recurrences: likewise of y
  float eps = 0, scale = 0, softcap = 0;
  float dt_least = 0, dt_most = 0;  // selective_state
  Tuning tuning{};                  // of the step at hand
};

// natural: columns of x or out, the stride of rows without a gap.
constexpr bool is_gated(int32_t act) { return act == 1 || act == 2 || act == 6; }
constexpr int64_t x_stride(const Args& a, int64_t natural) { return a.x_stride ? a.x_stride : natural; }
constexpr int64_t out_stride(const Args& a, int64_t natural) { return a.out_stride ? a.out_stride : natural; }

// Cosines and sines of row t of T: those that the step gives, or those of its position. D: numbers of a head.
// static: no ISA level may end up with the code of another.
static constexpr const float* rope_row(const Args& a, const Step& s, int64_t t, int64_t D) {
  if (s.rope_rows) return s.rope_rows + t * D;
  return a.rope + (s.rope_positions ? s.rope_positions : s.positions)[t] * D;
}

// Private memory of one thread, 64-byte aligned. Contents stay from item to item of one call.
struct Scratch {
  char* base;
  int64_t bytes;
  int64_t thread = 0;
  // Rows of x that gemm.inl's copies hold, and in tiles of which height; none when a call begins.
  int64_t held_row = -1, held_rows = 0, held_height = 0;
  int64_t held_slab = -2;  // what expert_linear has there: -2 when a call begins, -1 a sorted list of pairs, else the
                           // rows of this slab too
};

using KernelFn = void (*)(const Args&, const Step&, int64_t begin, int64_t end, Scratch&);
using CountFn = int64_t (*)(const Args&, const Step&);
using ScratchFn = int64_t (*)(const Args&);

// One line of a family's list of variants; lists are in order of preference, scalar last.
struct Variant {
  const char* family;
  const char* dtype;  // weight type: float32, float16, bfloat16; "any" where it does not matter
  const char* isa;    // level needed to run it
  KernelFn run;
};

// Lines of a family that is compiled once for each way of adding float32 numbers (norm_avx512 and so on of norm), and
// of one that is the same function wherever it runs.
#define ALBIREO_VARIANT(family, level, run) {#family, "any", #level, run}
// clang-format off
#if defined(__x86_64__)
#define ALBIREO_AT_EVERY_LEVEL(family)                 \
  ALBIREO_VARIANT(family, avx512, family##_avx512),    \
  ALBIREO_VARIANT(family, avx2, family##_avx2),        \
  ALBIREO_VARIANT(family, scalar, family##_scalar)
#define ALBIREO_SAME_AT_EVERY_LEVEL(family, run)       \
  ALBIREO_VARIANT(family, avx512, run),                \
  ALBIREO_VARIANT(family, avx2, run),                  \
  ALBIREO_VARIANT(family, scalar, run)
#elif defined(__aarch64__)
#define ALBIREO_AT_EVERY_LEVEL(family)                 \
  ALBIREO_VARIANT(family, neon, family##_neon),        \
  ALBIREO_VARIANT(family, scalar, family##_scalar)
#define ALBIREO_SAME_AT_EVERY_LEVEL(family, run)       \
  ALBIREO_VARIANT(family, neon, run),                  \
  ALBIREO_VARIANT(family, scalar, run)
#endif
// clang-format on

// What a family is to the runtime. item: the unit threads claim. revision: raised when its kernels change so much that
// what was measured of them no longer holds.
struct Family {
  const char* name;
  CountFn items;
  ScratchFn scratch_bytes;
  const Variant* variants;
  int64_t num_variants;
  int64_t revision;

  template <int64_t N>
  constexpr Family(const char* name, CountFn items, ScratchFn scratch_bytes, const Variant (&variants)[N],
                   int64_t revision = 1)
      : name(name),
        items(items),
        scratch_bytes(scratch_bytes),
        variants(variants),
        num_variants(N),
        revision(revision) {}
};

const Family* find_family(const char* name);
const Family* const* families(int64_t* count);

}  // namespace albireo
