// out[p] = act(x[r] @ weight_e^T)   with e = ids[p], r = p where x has a row for each pair, else p / top_k
// x [T or P, K] x_dtype; weight: of each expert whole panels p64.<w_dtype>, one expert's behind the other's; ids [P];
// out [P, n]. act as in linear. Ids of num_experts and above have no panels: their rows of out are zeros.
// A row of an expert's panels is what linear makes of the same row and panels, to the bit: the pairs of an expert are
// rows gathered into scratch, multiplied as linear multiplies them, whatever else is in the step.
// Reads: x weight ids out n k act rows x_dtype w_dtype out_dtype top_k num_experts most_pairs of_pairs.
#pragma once
#include "albireo/kernel.h"
#include "kernels/expert_linear/pairs.h"

namespace albireo {
void expert_linear_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_avxvnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_avx512vnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_bf16_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_neondot(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void expert_linear_integers_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kExpertLinear;
}  // namespace albireo
