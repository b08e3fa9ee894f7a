// out[i, (l * targets + p) * max_rank + q] = x[i, leaf l] . A[slot, p, q, leaf l]   for every target p and the ranks in
// use; slot = that of row i; one leaf but of a linear in chunks
// x [rows, leaves * K] x_dtype, also kInt8Token, of one leaf: what the linear multiplies; out float32. Rows without an
// adapter, and ranks not in use, are not written; low.inl, which multiplies by B, does not read them. Row by row, one
// chain a lane: bitwise independent of the batch. Source: Hu et al. 2021 (LoRA), eq. 3. Reads: x out adapters rows
// x_dtype x_stride out_stride; step: adapter_slots.
#pragma once
#include "albireo/adapter.h"
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t adapter_parts(const Adapters& d) { return d.leaves * d.targets * ceil_div(d.max_rank, kRankBlock); }
void adapter_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void adapter_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kAdapter;
}  // namespace albireo
