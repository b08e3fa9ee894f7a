// out[t, c] = act(weight[c, 0] x[t - W + 1, c] + ... + weight[c, W - 1] x[t, c] (+ bias[c])) over the rows of each
// sequence, where rows before its first are zeros and those before the step's are its state, which becomes the step's
// last W - 1. act 0 is silu, 1 leaves sums as they are. gated: rows of x are three parts of C: one that x is multiplied
// by before, one that out is multiplied by behind act, and x.
// x float32, [T, C] or [T, 3 C]; out [T, C] of any compute type, apart from x; weight [C, W], bias [C] float32; state:
// of each slot [W - 1, C] float32. C = n, W = k, from 2 to 8. Sums in this order, so that a row's bits do not depend on
// the step it is computed in. An item is 64 channels of one sequence.
// Reads: x weight bias out out_dtype state state_size n k act gated x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kMostConvWidth = 8;
constexpr int64_t kConvChannels = 64;  // of an item
void causal_conv_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void causal_conv_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void causal_conv_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void causal_conv_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kCausalConv;
}  // namespace albireo
