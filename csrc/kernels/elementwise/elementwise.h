// out[i, e] = f(x[i, e] [, y[i, e]]) with f one of Map: what a fused kernel does to a tile, as a pass over memory.
// x, y [rows, E] float32, laid out alike, of a cast to kInt8Token also bfloat16 or float16; out [rows, E] out_dtype.
// E = k. Element by element, to kInt8Token row by row. kScale: x * scale; kSoftcap: softcap * tanh(x / softcap);
// kScaleBy: x * weight[0], float32; kClamp: x kept between weight[0] and weight[1]; kGain: x[i, e] * weight[e];
// kShift: x[i, e] + weight[e];
// kClip: x kept between -scale and scale; kClipAbove: x, or scale where that is less.
// kXielu: p max(x, 0)^2 + n (e^m - 1 - m) + x / 2, m = min(x, 0), p = softplus(weight[0]), n = 1/2 +
// softplus(weight[1]). Reads: x y weight out k act scale softcap rows x_stride out_stride x_dtype out_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
// What is done to each element; the numbers are those of backends/cpu/arguments.py.
enum class Map : int32_t {
  kCast = 0,
  kSilu = 1,
  kGelu = 2,
  kGeluTanh = 3,
  kRelu = 4,
  kScale = 5,
  kSoftcap = 6,
  kAdd = 7,
  kMul = 8,
  kClampedSwiglu = 9,
  kSigmoid = 10,
  kScaleBy = 11,
  kRelu2 = 12,
  kClamp = 13,
  kXielu = 14,
  kGain = 15,
  kClip = 16,
  kClipAbove = 17,
  kShift = 18,
};
void elementwise_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void elementwise_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void elementwise_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void elementwise_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kElementwise;
}  // namespace albireo
