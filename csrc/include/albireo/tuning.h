// Numbers of a call that change its speed and never a bit of its result. They come from a tuning table, or are these.
//
// Why bits cannot change: an output is one chain over ascending k in float32. These numbers say into which rows, K
// blocks and items the chains are cut and who computes them; a chain that is cut goes through memory as float32 and is
// taken up again exactly. A number that would cut or reorder a chain itself does not belong here.
#pragma once
#include "albireo/types.h"

namespace albireo {

constexpr int64_t kTallRows = 28;  // most rows of a tall tile, where there is one

struct Tuning {
  int64_t tall_rows = kTallRows;      // most rows that one tall tile takes; above it wide tiles and K blocks; 0: none
  int64_t fetch_bytes = 8 << 10;      // how far ahead a tall tile fetches, to L1: memory answers in 200 ns at most
  int64_t block_steps = 1024;         // K block of wide tiles: 64 x 1024 steps x 4 B = 256 KiB of panel stay in L2
  int64_t slab_rows = 5 * kRowChunk;  // rows of an item: a thread's share of A stays in its cache; whole chunks
  int64_t claims = 4;                 // a thread takes one of so many parts of what is left of its share
  int64_t one_queue = 0;              // 0: a contiguous share each, so that a thread streams neighbours; 1: one for all
};

// A call has one Tuning a bucket of rows; these are the most rows of each but the last.
constexpr int64_t kBucketRows[] = {1, 8, 28, 64, 128, 512};
constexpr int64_t kNumBuckets = 1 + sizeof(kBucketRows) / sizeof(kBucketRows[0]);

// static: no ISA level may end up with the code of another.
static constexpr int64_t bucket_of(int64_t rows) {
  int64_t bucket = 0;
  while (bucket < kNumBuckets - 1 && rows > kBucketRows[bucket]) bucket++;
  return bucket;
}

}  // namespace albireo
