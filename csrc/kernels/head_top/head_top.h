// The best logits of each row, as many as top_counts says, without writing the logits: 1 for the arg max, k + 1 for
// top-k (one more shows whether others equal the k-th).
// key(v, n) = (v as an ordered integer) << 32 | (0xffffffff - n), so the largest key is the largest value and, of
// equals, the lowest id. Which keys are the largest does not depend on the order they are met in: each thread keeps a
// list a row, and the lists are merged when the program ends.
// A NaN logit wins (its ordered bits are the largest), and whoever reads the value sees it.
// x [G, K] x_dtype; weight panels p64.<w_dtype>. softcap: values are softcap * tanh(value / softcap); 0: as they are.
// Reads: x weight top n k softcap rows x_dtype w_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/memory.h"
#include "albireo/split.h"

namespace albireo {

// Keys of one row that one thread has seen and that may be among the best.
struct TopList {
  static constexpr int64_t kRoom = 128;  // as many again as are wanted, so that the best are picked out seldom
  uint64_t floor;                        // keys up to here are not among the best
  float floor_value;                     // the value of floor; -inf when there is none
  int32_t count;
  uint64_t keys[kRoom];

  void shrink(int64_t wanted);  // keeps the wanted best
};

// The lists of all threads and rows. Memory is taken from the machine row by row, as steps need it.
struct TopLists {
  TopLists(int64_t threads, int64_t max_rows);
  TopList& list(int64_t thread, int64_t row) { return lists[thread * rows + row]; }
  int64_t max_rows() const { return rows; }

  void clear(int64_t count);
  // ids, values [G, kTopMost]: best first; -1 and -inf behind the last that is wanted or that exists.
  void best(const Step& step, int32_t* ids, float* values);

  int64_t threads, rows;
  Memory memory;
  TopList* lists;
};

void head_top_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avxvnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx512vnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_bf16_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_neondot(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_integers_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kHeadTop;
}  // namespace albireo
