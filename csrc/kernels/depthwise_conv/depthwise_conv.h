// out[t, c] = act(weight[c, 0] x[t - W / 2, c] + ... + weight[c, W - 1] x[t + W / 2, c] (+ bias[c])) over the rows of
// the step, which are one sequence; rows that it does not have are zeros. act 0 is silu, 1 leaves sums as they are.
// x float32 [T, C]; out [T, C] of any compute type, apart from x; weight [C, W], bias [C] float32. C = n, W = k, odd.
// Sums in this order, each row by itself: its bits do not depend on threads. An item is 64 channels of 64 rows.
// Reads: x weight bias out out_dtype n k act x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kMostDepthwise = 63;      // rows that one is made of
constexpr int64_t kDepthwiseChannels = 64;  // of an item
constexpr int64_t kDepthwiseRows = 64;
void depthwise_conv_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void depthwise_conv_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void depthwise_conv_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void depthwise_conv_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kDepthwiseConv;
}  // namespace albireo
