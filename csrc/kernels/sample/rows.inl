// Body of the passes over a row of logits, for one level.
#include <bit>
#include <limits>

#include "kernels/sample/rows.h"

namespace albireo {
namespace {

inline double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// exp(x) for x <= 0 to 1e-14 of itself; 0 below -700. Taylor to the 11th power over half of log 2 either way.
inline double exp_below_0(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to a whole number, which lies in the last bits
  const double whole = multiply_add(x, 1.4426950408889634, kShift), n = whole - kShift;
  const double r = multiply_add(n, -1.9082149292705877e-10, multiply_add(n, -6.93147180369123816490e-01, x));
  double p = 1.0 / 39916800;
  p = multiply_add(p, r, 1.0 / 3628800);
  p = multiply_add(p, r, 1.0 / 362880);
  p = multiply_add(p, r, 1.0 / 40320);
  p = multiply_add(p, r, 1.0 / 5040);
  p = multiply_add(p, r, 1.0 / 720);
  p = multiply_add(p, r, 1.0 / 120);
  p = multiply_add(p, r, 1.0 / 24);
  p = multiply_add(p, r, 1.0 / 6);
  p = multiply_add(p, r, 0.5);
  p = multiply_add(p, r, 1.0);
  p = multiply_add(p, r, 1.0);
  const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(whole) + 1023) << 52);
  return x < -700.0 ? 0.0 : p * power;
}

inline double weight_of(float logit, const RowScale& scale) {
  return exp_below_0(((double)logit - scale.peak) * scale.sharpness);
}

// What so many weights add up to, a chunk at most: eight chains, whatever the level, then those in pairs.
inline double chunk_sum(const double* weights, int64_t n) {
  constexpr int64_t kLanes = 8;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; j++) sums[j] += weights[i + j];
  for (int64_t j = 0; i + j < n; j++) sums[j] += weights[i + j];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <class Run>  // run(chunk, its first logit, how many it has)
inline void over_chunks(int64_t n, Run run) {
  const int64_t whole = n / kRowChunkLogits;
  for (int64_t c = 0; c < whole; c++) run(c, c * kRowChunkLogits, kRowChunkLogits);
  if (whole * kRowChunkLogits < n) run(whole, whole * kRowChunkLogits, n - whole * kRowChunkLogits);
}

// Whole numbers in the order of the float32 with these bits, and back: of them the compiler adds up largest ones.
inline int32_t in_order(int32_t bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

void maxima(const float* x, int64_t n, float* to) {
  over_chunks(n, [&](int64_t c, int64_t first, int64_t count) {
    int32_t most = std::numeric_limits<int32_t>::min();
    for (int64_t i = 0; i < count; i++) {
      const int32_t each = in_order(std::bit_cast<int32_t>(x[first + i]));
      most = each > most ? each : most;
    }
    to[c] = std::bit_cast<float>(in_order(most));
  });
}

void weigh(const float* x, int64_t n, const RowScale& given, double* __restrict weights) {
  const RowScale scale = given;
  for (int64_t i = 0; i < n; i++) weights[i] = weight_of(x[i], scale);
}

void weigh_chunks(const float* x, int64_t n, const RowScale& scale, double* sums) {
  over_chunks(n, [&](int64_t c, int64_t first, int64_t count) {
    double weights[kRowChunkLogits];
    weigh(x + first, count, scale, weights);
    sums[c] = chunk_sum(weights, count);
  });
}

void add_chunks(const double* weights, int64_t n, double* sums) {
  over_chunks(n, [&](int64_t c, int64_t first, int64_t count) { sums[c] = chunk_sum(weights + first, count); });
}

int64_t count_above(const float* x, int64_t n, float bound) {
  int64_t count = 0;
  over_chunks(n, [&](int64_t, int64_t first, int64_t size) {
    int32_t above = 0;
    for (int64_t i = 0; i < size; i++) above += x[first + i] > bound;
    count += above;
  });
  return count;
}

}  // namespace
}  // namespace albireo
