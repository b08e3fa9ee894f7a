// score[e] = exp(x[t, e] - most), most: the largest of x[t]; where sigmoid is 1: 1 / (1 + exp(-x[t, e])); where it is
//   2: sqrt(log(1 + exp(x[t, e])))
// merit[e] = x[t, e]; where there is a bias: score[e] / whole + bias[e], or x[t, e] + bias[e] where act is 1
// whole = of softmax the sum of score over all E, ascending, in one chain; of the others 1
// ids[t] = the top_k best by merit, best first, of equals the lowest id, NaN before all numbers; where num_groups > 0
//   only experts of the kept_groups best of so many equal groups, a group's worth being its best merit, or, group_best
//   being 2, the sum of its two best; of equals the first group
// gates, where they are there: [T, top_k] float32, the ids; nothing is compared then. Ids that no expert has are 0.
// weights[t, j] = score[ids[t, j]] / d * scale * weight[ids[t, j]]       scale 0, weight null: not multiplied
// d = whole; where renormalize: the sum of the chosen scores, j ascending, plus eps, and at least kLeastScores
// margin > 0: weights[t, j] = 1 / the sum, e ascending, of exp(x[t, e] - m), m = x[t, ids[t, j]], over experts e that
//   are not chosen before and have m - x[t, e] <= margin * max(|x[t, e]|, m)
// x [T, E] float32; bias, weight [E] float32 or none; ids [T, top_k] int32; weights [T, top_k] float32. E = k.
// Row by row: bitwise independent of the batch. Reads: x bias weight gates ids pair_weights k top_k renormalize
// sigmoid num_groups kept_groups group_best scale eps margin act rows x_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr float kLeastScores = 1e-20f;  // as graph/op_numbers.py LEAST_SCORES
void route_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void route_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void route_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void route_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kRoute;
}  // namespace albireo
