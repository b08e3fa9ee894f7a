// Body of route for one ISA level; include after vec_<isa>.h and math.inl.
#include "kernels/route/route.h"

namespace {

inline bool is_better(float a, float b) { return a > b || (a != a && b == b); }

// Puts begin .. end among the ids of the best so far, in order; each goes behind those that it is not better than. They
// come ascending, so that of equals the lowest stays in front. Returns: how many there are, top_k at most.
inline int64_t choose(const float* x, int64_t begin, int64_t end, int64_t top_k, int32_t* ids, int64_t held) {
  for (int64_t e = begin; e < end; e++) {
    if (held == top_k && !is_better(x[e], x[ids[top_k - 1]])) continue;
    int64_t at = held < top_k ? held++ : top_k - 1;
    for (; at > 0 && is_better(x[e], x[ids[at - 1]]); at--) ids[at] = ids[at - 1];
    ids[at] = (int32_t)e;
  }
  return held;
}

// The same of all experts of the groups that are kept. worth, kept: room for a number of each group.
inline void choose_in_groups(const Args& a, const float* merit, float* worth, int32_t* kept, int32_t* ids) {
  const int64_t size = a.k / a.num_groups;
  for (int64_t g = 0; g < a.num_groups; g++) {
    int32_t best[2] = {};
    choose(merit, g * size, (g + 1) * size, a.group_best, best, 0);
    worth[g] = merit[best[0]];
    if (a.group_best == 2) worth[g] += merit[best[1]];
  }
  choose(worth, 0, a.num_groups, a.kept_groups, kept, 0);
  int64_t held = 0;
  for (int64_t g = 0; g < a.num_groups; g++) {
    bool is_kept = false;
    for (int64_t i = 0; i < a.kept_groups; i++) is_kept |= kept[i] == g;
    if (is_kept) held = choose(merit, g * size, (g + 1) * size, a.top_k, ids, held);
  }
}

// What the choice ids[j] counts among experts that are near it and not chosen before. powers: room for E numbers.
ALBIREO_INLINE float share_of_near(const Args& a, const float* x, const int32_t* ids, int64_t j, float* powers) {
  const float best = x[ids[j]];
  for (int64_t e = 0; e < a.k; e += 16) {
    const V v = a.k - e >= 16 ? load(x + e) : load_n(x + e, a.k - e);
    store(powers + e, exp2_v(mul(sub(v, set1(best)), set1(kLog2e))));
  }
  for (int64_t i = 0; i < j; i++) powers[ids[i]] = 0.0f;
  float whole = 0.0f;
  for (int64_t e = 0; e < a.k; e++) {
    const float size = x[e] < 0.0f ? -x[e] : x[e];
    if (!(best - x[e] > a.margin * (size > best ? size : best))) whole += powers[e];
  }
  return 1.0f / whole;
}

// Scores of 16 logits. kind: as Args::sigmoid.
ALBIREO_INLINE void put_scores(float* scores, V v, int32_t kind, float most) {
  if (kind == 0) return store(scores, exp2_v(mul(sub(v, set1(most)), set1(kLog2e))));
  if (kind == 1) return store(scores, div(set1(1.0f), add(set1(1.0f), exp2_v(mul(v, set1(-kLog2e))))));
  store(scores, softplus(v));
  for (int i = 0; i < 16; i++) scores[i] = __builtin_sqrtf(scores[i]);
}

// Ids that are numbers: of a token of a table.
inline void take_ids(const Args& a, const float* given, int32_t* ids) {
  for (int64_t j = 0; j < a.top_k; j++) ids[j] = given[j] >= 0.0f && given[j] < (float)a.k ? (int32_t)given[j] : 0;
}

ALBIREO_INLINE void dispatch_route(const Args& a, const Step&, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t room = round_up(a.k, 16);
  float *scores = (float*)scratch.base, *merits = scores + room;
  for (int64_t t = begin; t < end; t++) {
    const float* x = (const float*)a.x + t * x_stride(a, a.k);
    int32_t* ids = a.ids + t * a.top_k;
    float* weights = a.pair_weights + t * a.top_k;
    const bool is_by_logits = !a.bias && !a.num_groups && !a.gates;
    if (is_by_logits) choose(x, 0, a.k, a.top_k, ids, 0);
    int32_t most = is_by_logits ? ids[0] : 0;
    if (!is_by_logits) choose(x, 0, a.k, 1, &most, 0);
    for (int64_t e = 0; e < a.k; e += 16) {
      const V v = a.k - e >= 16 ? load(x + e) : load_n(x + e, a.k - e);
      put_scores(scores + e, v, a.sigmoid, x[most]);
    }
    float whole = 1.0f;
    if (!a.sigmoid && (a.bias || !a.renormalize)) {
      whole = 0.0f;
      for (int64_t e = 0; e < a.k; e++) whole += scores[e];
    }
    const float* merit = x;
    if (a.bias) {
      for (int64_t e = 0; e < a.k; e += 16)
        store(merits + e,
              add(a.act ? (a.k - e >= 16 ? load(x + e) : load_n(x + e, a.k - e)) : div(load(scores + e), set1(whole)),
                  load(a.bias + e)));
      merit = merits;
    }
    if (a.gates) take_ids(a, a.gates + t * a.top_k, ids);
    else if (a.num_groups) choose_in_groups(a, merit, merits + room, (int32_t*)(merits + 2 * room), ids);
    else if (!is_by_logits) choose(merit, 0, a.k, a.top_k, ids, 0);
    if (a.renormalize) {
      whole = 0.0f;
      for (int64_t j = 0; j < a.top_k; j++) whole += scores[ids[j]];
      whole += a.eps;
      if (whole < kLeastScores) whole = kLeastScores;
    }
    for (int64_t j = 0; j < a.top_k; j++) {
      weights[j] = a.margin > 0.0f ? share_of_near(a, x, ids, j, scores) : scores[ids[j]] / whole;
      if (a.scale != 0.0f) weights[j] *= a.scale;
      if (a.weight) weights[j] *= ((const float*)a.weight)[ids[j]];
    }
  }
}

}  // namespace
