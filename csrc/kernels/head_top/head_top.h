// top_keys[g] = max over columns n of key(x[g] . weight[n], n): the arg max of each row, without writing logits.
// key(v, n) = (v as an ordered integer) << 32 | (0xffffffff - n), so the largest key is the largest value and, of
// equals, the lowest id. A maximum does not depend on the order it is taken in: threads merge with a compare-and-swap.
// A NaN logit wins (its ordered bits are the largest), and whoever reads the value sees it.
// x [G, K] x_dtype; weight panels p64.<w_dtype>; top_keys [G], zero before.
// Reads: x weight top_keys n k rows x_dtype w_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"

namespace albireo {
void head_top_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void head_top_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void unpack_top_keys(const uint64_t* keys, int64_t count, int32_t* ids, float* values);
extern const Family kHeadTop;
}  // namespace albireo
