// out[i, p * max_rank + q] = x[i] . A[slot, p, q]   for every target p and the ranks in use; slot = that of row i
// x [rows, K] x_dtype, also kInt8Token: what the linear multiplies; out [rows, targets * max_rank] float32. Rows
// without an adapter, and ranks not in use, are not written; low.inl, which multiplies by B, does not read them. Row by
// row, one chain a lane: bitwise independent of the batch. Source: Hu et al. 2021 (LoRA), eq. 3. Reads: x out adapters
// rows x_dtype x_stride out_stride; step: adapter_slots.
#pragma once
#include "albireo/adapter.h"
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t adapter_parts(const Adapters& d) { return d.targets * ceil_div(d.max_rank, kRankBlock); }
void adapter_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kAdapter;
}  // namespace albireo
