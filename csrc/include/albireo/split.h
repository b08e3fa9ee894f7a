// How rows are cut into slabs, shared by the counters (compiled once) and the kernels (compiled per ISA level).
#pragma once
#include "albireo/types.h"

namespace albireo {

// Slabs keep a thread's share of A in its cache and give small matrices enough items: 10 chunks of rows each.
constexpr int64_t kSlabRows = 10 * kRowChunk;
constexpr int64_t num_slabs(int64_t rows) { return ceil_div(rows, kSlabRows); }
constexpr int64_t slab_begin(int64_t slab) { return slab * kSlabRows; }
constexpr int64_t slab_end(int64_t slab, int64_t rows) {
  return (slab + 1) * kSlabRows < rows ? (slab + 1) * kSlabRows : rows;
}

constexpr int64_t kTallRows = 28;  // most rows of a tall tile, where there is one

// Scratch of a kernel that multiplies rows of inner size k: copies of a chunk of activations, and of the rows of a tall
// tile, at their widest.
constexpr int64_t activation_copy_bytes(int64_t k) { return (kRowChunk + kTallRows) * round_up(k, 16) * 4; }

}  // namespace albireo
