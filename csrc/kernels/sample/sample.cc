#include "kernels/sample/sample.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace albireo {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest(), kNone = -std::numeric_limits<float>::infinity();

// Weights down to which top-p looks for its tokens before it takes all: the first or the second holds the mass of a
// language model's row, of a flat one none does.
constexpr double kLevels[] = {0x1p-7, 0x1p-14, 0x1p-28};

RowScale scale_of(const DrawSettings& s) { return {s.peak, 1 / s.temperature}; }

void find_maxima(const float* x, int64_t n, SampleScratch& scratch) {
  scratch.maxima.resize(row_chunks(n));
  scratch.passes.maxima(x, n, scratch.maxima.data());
}

// A logit that at least num of n reach, and few others: the num-th largest of the chunks' largest.
float bound_of_best(int64_t num, SampleScratch& scratch) {
  if (num > (int64_t)scratch.maxima.size()) return kNone;
  scratch.bounds = scratch.maxima;
  const auto at = scratch.bounds.begin() + (num - 1);
  std::nth_element(scratch.bounds.begin(), at, scratch.bounds.end(), std::greater<float>());
  return *at;
}

// Lists the tokens whose logits reach a bound; the maxima are known.
void gather(const float* x, int64_t n, float bound, SampleScratch& scratch) {
  Candidates& kept = scratch.kept;
  int64_t count = 0;
  for (int64_t c = 0; c < row_chunks(n); c++) {
    if (scratch.maxima[c] < bound) continue;
    const int64_t first = c * kRowChunkLogits, end = std::min(n, first + kRowChunkLogits);
    if ((int64_t)kept.ids.size() < count + kRowChunkLogits) {
      const int64_t room = std::max(2 * count, 64 * kRowChunkLogits);
      kept.ids.resize(room), kept.logits.resize(room);
    }
    for (int64_t i = first; i < end; i++) {
      kept.ids[count] = (int32_t)i, kept.logits[count] = x[i];
      count += x[i] >= bound;
    }
  }
  kept.ids.resize(count), kept.logits.resize(count);
}

void weigh_list(const DrawSettings& settings, SampleScratch& scratch) {
  Candidates& kept = scratch.kept;
  kept.weights.resize(kept.logits.size());
  scratch.passes.weigh(kept.logits.data(), (int64_t)kept.logits.size(), scale_of(settings), kept.weights.data());
}

// Of the list what is(place) says; of its weights, too, where they are known.
template <class Is>
void filter(Candidates& kept, Is is) {
  const bool weighed = kept.weights.size() == kept.ids.size();
  size_t count = 0;
  for (size_t place = 0; place < kept.ids.size(); place++) {
    if (!is(place)) continue;
    kept.ids[count] = kept.ids[place], kept.logits[count] = kept.logits[place];
    if (weighed) kept.weights[count] = kept.weights[place];
    count++;
  }
  kept.ids.resize(count), kept.logits.resize(count);
  if (weighed) kept.weights.resize(count);
}

double sum_of(const double* sums, int64_t n) { return std::accumulate(sums, sums + n, 0.0); }

double list_total(SampleScratch& scratch) {
  const auto& weights = scratch.kept.weights;
  scratch.sums.resize(row_chunks((int64_t)weights.size()));
  scratch.passes.add_chunks(weights.data(), (int64_t)weights.size(), scratch.sums.data());
  return sum_of(scratch.sums.data(), (int64_t)scratch.sums.size());
}

double row_total(const float* x, int64_t n, const RowScale& scale, SampleScratch& scratch) {
  scratch.sums.resize(row_chunks(n));
  scratch.passes.weigh_chunks(x, n, scale, scratch.sums.data());
  return sum_of(scratch.sums.data(), (int64_t)scratch.sums.size());
}

// Larger logits first, among equals lower places.
bool is_before(const SampleScratch::Entry& a, const SampleScratch::Entry& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.place < b.place);
}

// Cuts the list behind the token with which the mass of the most probable ones reaches a target. Sorts nothing: masses
// of eighths of the exponent say in which of them that is, and of its tokens half are left out until one is left.
void cut_at_mass(double target, const DrawSettings& settings, SampleScratch& scratch) {
  Candidates& kept = scratch.kept;
  constexpr int kRanges = 256;
  const RowScale scale = scale_of(settings);
  const auto range_of = [&](float logit) {
    return (int)std::min((scale.peak - logit) * scale.sharpness * 8, (double)(kRanges - 1));
  };
  double masses[kRanges] = {}, before = 0;
  for (size_t place = 0; place < kept.ids.size(); place++) masses[range_of(kept.logits[place])] += kept.weights[place];
  int range = 0, last_range = 0;
  for (int r = 0; r < kRanges; r++)
    if (masses[r] > 0) last_range = r;
  while (range < last_range && before + masses[range] < target) before += masses[range++];
  auto& order = scratch.order;
  order.clear();
  for (size_t place = 0; place < kept.ids.size(); place++)
    if (range_of(kept.logits[place]) == range) order.push_back({kept.logits[place], (int32_t)place});
  auto first = order.begin(), end = order.end();
  while (end - first > 1) {
    const auto middle = first + (end - first) / 2;
    std::nth_element(first, middle, end, is_before);
    double mass = 0;
    for (auto each = first; each != middle; each++) mass += kept.weights[each->place];
    if (before + mass >= target) end = middle;
    else before += mass, first = middle;
  }
  const SampleScratch::Entry last = *first;
  filter(kept, [&](size_t place) { return !is_before(last, {kept.logits[place], (int32_t)place}); });
}

void keep_mass(const float* x, int64_t n, const DrawSettings& settings, bool is_listed, SampleScratch& scratch) {
  if (is_listed) return cut_at_mass(settings.top_p * list_total(scratch), settings, scratch);
  const double target = settings.top_p * row_total(x, n, scale_of(settings), scratch);
  find_maxima(x, n, scratch);
  for (const double level : kLevels) {
    gather(x, n, std::max(kLowest, (float)(settings.peak + settings.temperature * std::log(level))), scratch);
    weigh_list(settings, scratch);
    // A little more than the target, so that no order of adding falls short of it.
    if (list_total(scratch) > target * (1 + 1e-9)) return cut_at_mass(target, settings, scratch);
  }
  gather(x, n, kLowest, scratch);
  weigh_list(settings, scratch);
  cut_at_mass(target, settings, scratch);
}

}  // namespace

const RowPasses& row_passes(const std::string& level) {
#if defined(__x86_64__)
  if (level == "avx2" || level == "avxvnni") return kRowsAvx2;
  if (level != "scalar") return kRowsAvx512;
#elif defined(__aarch64__)
  if (level != "scalar") return kRowsNeon;
#endif
  return kRowsScalar;
}

bool keep(const float* x, int64_t n, const DrawSettings& settings, SampleScratch& scratch) {
  Candidates& kept = scratch.kept;
  const int64_t top_k = settings.top_k > 0 && settings.top_k < (double)n ? (int64_t)settings.top_k : 0;
  // Of a chunk or less, too: so it is with the best of a row, alone, as among all of the row.
  const bool is_listed = top_k > 0 || settings.min_p > 0 || n <= kRowChunkLogits;
  if (is_listed) {
    find_maxima(x, n, scratch);
    float bound = top_k > 0 ? std::max(kLowest, bound_of_best(top_k, scratch)) : kLowest;
    if (settings.min_p > 0) {
      // Lowered by more than rounding, so that the weights decide.
      const double drop = settings.temperature * std::log(settings.min_p);
      bound = std::max(bound, (float)(settings.peak + drop - 1e-6 * (std::abs(settings.peak) - drop)));
    }
    gather(x, n, bound, scratch);
    kept.weights.clear();
    if (top_k > 0 && (int64_t)kept.logits.size() > top_k) {
      scratch.bounds = kept.logits;
      const auto kth = scratch.bounds.begin() + (top_k - 1);
      std::nth_element(scratch.bounds.begin(), kth, scratch.bounds.end(), std::greater<float>());
      const float least = *kth;
      filter(kept, [&](size_t place) { return kept.logits[place] >= least; });
    }
    weigh_list(settings, scratch);
    if (settings.min_p > 0) filter(kept, [&](size_t place) { return kept.weights[place] >= settings.min_p; });
  }
  if (settings.top_p < 1) keep_mass(x, n, settings, is_listed, scratch);
  return is_listed || settings.top_p < 1;
}

void list_kept(const float* x, int64_t n, const DrawSettings& settings, SampleScratch& scratch) {
  if (keep(x, n, settings, scratch)) return;
  scratch.kept.ids.resize(n), scratch.kept.logits.assign(x, x + n);
  std::iota(scratch.kept.ids.begin(), scratch.kept.ids.end(), 0);
  weigh_list(settings, scratch);
}

int64_t draw(const float* x, int64_t n, const DrawSettings& settings, double fraction, SampleScratch& scratch) {
  const bool is_listed = keep(x, n, settings, scratch);
  const RowScale scale = scale_of(settings);
  const double total = is_listed ? list_total(scratch) : row_total(x, n, scale, scratch);
  // fraction <= 1 - 2^-53, so the product rounds below the total and the search stays inside.
  const double target = fraction * total;
  int64_t chunk = 0;
  double before = 0;
  while (before + scratch.sums[chunk] <= target) before += scratch.sums[chunk++];
  const int64_t first = chunk * kRowChunkLogits, size = is_listed ? (int64_t)scratch.kept.ids.size() : n;
  const int64_t count = std::min(kRowChunkLogits, size - first);
  double weights[kRowChunkLogits];
  if (is_listed) std::copy_n(scratch.kept.weights.begin() + first, count, weights);
  else scratch.passes.weigh(x + first, count, scale, weights);
  // One after another they may round below the chunk's own sum: then the last with a weight is meant.
  double inside = 0;
  int64_t found = first;
  for (int64_t i = 0; i < count; i++) {
    if (weights[i] > 0) found = first + i;
    inside += weights[i];
    if (inside > target - before) break;
  }
  return is_listed ? scratch.kept.ids[found] : found;
}

double log_total(const float* x, int64_t n, double peak, SampleScratch& scratch) {
  return peak + std::log(row_total(x, n, {peak, 1}, scratch));
}

void best_of(const float* x, int64_t n, int64_t num, int32_t* best, SampleScratch& scratch) {
  find_maxima(x, n, scratch);
  gather(x, n, bound_of_best(num, scratch), scratch);
  auto& order = scratch.order;
  order.resize(scratch.kept.ids.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = {scratch.kept.logits[i], scratch.kept.ids[i]};
  std::partial_sort(order.begin(), order.begin() + num, order.end(), is_before);
  for (int64_t i = 0; i < num; i++) best[i] = order[i].place;
}

int64_t count_above(const float* x, int64_t n, float logit, const SampleScratch& scratch) {
  return scratch.passes.count_above(x, n, logit);
}

}  // namespace albireo
