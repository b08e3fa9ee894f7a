// How rows are cut into slabs, shared by the counters (compiled once) and the kernels (compiled per ISA level).
#pragma once
#include "albireo/encoded.h"
#include "albireo/kernel.h"
#include "albireo/tuning.h"

namespace albireo {

// Slabs of slab_rows rows keep a thread's share of A in its cache and give small matrices enough items.
constexpr int64_t num_slabs(int64_t rows, int64_t slab_rows) { return ceil_div(rows, slab_rows); }
constexpr int64_t slab_begin(int64_t slab, int64_t slab_rows) { return slab * slab_rows; }
constexpr int64_t slab_end(int64_t slab, int64_t slab_rows, int64_t rows) {
  return (slab + 1) * slab_rows < rows ? (slab + 1) * slab_rows : rows;
}

// Scratch of a kernel that multiplies rows of inner size k: copies of a chunk of activations, and of the rows of a tall
// tile, at their widest.
constexpr int64_t activation_copy_bytes(int64_t k) { return (kRowChunk + kTallRows) * round_up(k, 16) * 4; }
constexpr Encoding weight_encoding(const Args& a) { return {a.w_dtype, a.group, a.affine != 0}; }
// And room for a panel of nibbles as bytes.
constexpr int64_t product_scratch_bytes(const Args& a) {
  return activation_copy_bytes(a.k) + unpacked_bytes(weight_encoding(a), a.k);
}

}  // namespace albireo
