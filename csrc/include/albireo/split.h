// How rows are cut into slabs, shared by the counters (compiled once) and the kernels (compiled per ISA level).
#pragma once
#include "albireo/encoded.h"
#include "albireo/kernel.h"
#include "albireo/tuning.h"

namespace albireo {

// How rows become items: slabs of at most slab_rows rows keep a thread's share of A in its cache and give small
// matrices enough items; a slab is some chunks. Chunks are of equal height but the last, and slabs of equally many, as
// nearly as whole ones allow: a short rest would pay for its panels alone, and one of few rows is for tall tiles, which
// wait for memory that these panels do not come from.
struct Slabs {
  int64_t rows, count = 0, chunk = 1, height = 0;
  constexpr Slabs(int64_t rows_, int64_t slab_rows) : rows(rows_) {
    if (rows <= 0) return;
    const int64_t chunks = rows <= kMostChunk ? 1 : ceil_div(rows, kRowChunk);
    const int64_t slabs = ceil_div(chunks, slab_rows / kRowChunk);
    chunk = ceil_div(rows, chunks), height = ceil_div(chunks, slabs) * chunk, count = ceil_div(rows, height);
  }
  constexpr int64_t begin(int64_t slab) const { return slab * height; }
  constexpr int64_t end(int64_t slab) const { return begin(slab) + height < rows ? begin(slab) + height : rows; }
};

// Scratch of a kernel that multiplies rows of inner size k: copies of a chunk of activations, and of the rows of a tall
// tile, at their widest.
constexpr int64_t activation_copy_bytes(int64_t k) { return (kMostChunk + kTallRows) * round_up(k, 16) * 4; }
constexpr Encoding weight_encoding(const Args& a) { return {a.w_dtype, a.group, a.affine != 0}; }
// And room for a panel of nibbles as bytes.
constexpr int64_t product_scratch_bytes(const Args& a) {
  return activation_copy_bytes(a.k) + unpacked_bytes(weight_encoding(a), a.k);
}

}  // namespace albireo
