// Passes over a row of logits, in chunks of 64: what is largest in each, and what its tokens weigh together. Compiled
// once a level, of plain loops; those that have fused multiply-adds give the same bits.
#pragma once
#include <cstdint>
#include <string>

namespace albireo {

constexpr int64_t kRowChunkLogits = 64;
constexpr int64_t row_chunks(int64_t n) { return (n + kRowChunkLogits - 1) / kRowChunkLogits; }

// What a token weighs: exp((logit - peak) * sharpness), of the largest logit 1; below e^-700 nothing.
struct RowScale {
  double peak, sharpness;
};

struct RowPasses {
  // maxima [row_chunks(n)]: the largest logit of each chunk; no NaN.
  void (*maxima)(const float* x, int64_t n, float* maxima);
  // sums [row_chunks(n)]: the weights of each chunk, added up.
  void (*weigh_chunks)(const float* x, int64_t n, const RowScale& scale, double* sums);
  // weights [n]: one each.
  void (*weigh)(const float* x, int64_t n, const RowScale& scale, double* weights);
  // sums [row_chunks(n)] of weights that are there already, as weigh_chunks adds them.
  void (*add_chunks)(const double* weights, int64_t n, double* sums);
  // How many logits are larger.
  int64_t (*count_above)(const float* x, int64_t n, float bound);
};

extern const RowPasses kRowsScalar, kRowsAvx2, kRowsAvx512, kRowsNeon;
// Those of a level; where it has none of its own, of the next below that has.
const RowPasses& row_passes(const std::string& level);

}  // namespace albireo
