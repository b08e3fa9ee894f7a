// The best logits of each row, as many as top_counts says, of logits that are in memory; see head_top.h, whose lists
// and whose order these are. Rows are those of G. x [G, V] float32. V = n. Reads: x top n rows x_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kTopChunk = 64 * kPanel;  // columns of a row that are one item
constexpr int64_t top_chunks(const Args& a) { return ceil_div(a.n, kTopChunk); }
void top_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void top_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void top_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void top_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kTop;
}  // namespace albireo
