// The pairs of a step by expert, and how they are shared out: what every thread works out for itself when a call
// begins, in less time than it would take to wait for another.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"
#include "albireo/tokens.h"

namespace albireo {

// Most rows of a slab: of one expert, gathered from where they lie and passed by every panel of it.
constexpr int64_t kPairSlab = 2 * kRowChunk;

// Bytes of a row of x, and from one gathered row to the next: no multiple of a page, or
// they would throw each other out of the first-level cache.
constexpr int64_t row_bytes(const Args& a) {
  return a.x_dtype == DType::kInt8Token ? token_row_bytes(a.k) : a.k * dtype_size(a.x_dtype);
}
constexpr int64_t gathered_stride(const Args& a) {
  const int64_t bytes = round_up(row_bytes(a), 64);
  return bytes % 4096 ? bytes : bytes + 64;
}

// The experts, and what stands for all that have no matrix: whose ids are num_experts and above.
constexpr int64_t num_owners(const Args& a) { return a.num_experts + 1; }

// Some pairs of one expert: order[first] .. order[first + rows], ascending, cut into chunks.
struct PairSlab {
  int32_t expert, first, rows, chunk;
};

// Most slabs of so many pairs: an expert with more than one has more than kMostChunk, and the others of it are full but
// for what whole chunks allow.
constexpr int64_t most_slabs(const Args& a, int64_t pairs) {
  return 2 * (num_owners(a) < pairs ? num_owners(a) : pairs) + pairs / (kPairSlab / 2) + 1;
}

// Of the scratch of one thread.
struct Pairs {
  int64_t* num_slabs;
  PairSlab* slabs;  // [most_slabs]
  int32_t* order;   // [P] pairs, those of an expert side by side, ascending
  int32_t* starts;  // [num_owners + 1]

  static constexpr int64_t bytes(const Args& a) {
    const int64_t pairs = a.most_pairs;
    return round_up(64 + most_slabs(a, pairs) * (int64_t)sizeof(PairSlab) + (pairs + num_owners(a) + 1) * 4, 64);
  }
  Pairs(const Args& a, char* memory)
      : num_slabs((int64_t*)memory),
        slabs((PairSlab*)(memory + 64)),
        order((int32_t*)(slabs + most_slabs(a, a.most_pairs))),
        starts(order + a.most_pairs) {}
  // Reads ids of `pairs` pairs.
  void sort(const Args& a, int64_t pairs) const;
};

}  // namespace albireo
