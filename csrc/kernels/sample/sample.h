// One token of a row of logits, and what is reported of it. A row is one thread's, from one end to the other, so what
// comes out depends on its logits and its settings alone.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/sample/rows.h"

namespace albireo {

// temperature above 0; top_k 0, top_p 1, min_p 0: off. peak: the largest logit, finite.
struct DrawSettings {
  double peak, temperature, top_k, top_p, min_p;
};

// A row's tokens that may be drawn, ids ascending, and what each weighs: the best 1. Memory is kept from row to row.
struct Candidates {
  std::vector<int32_t> ids;
  std::vector<float> logits;
  std::vector<double> weights;
};

// Memory of one thread, and what goes over its rows.
struct SampleScratch {
  explicit SampleScratch(const std::string& level) : passes(row_passes(level)) {}
  struct Entry {
    float logit;
    int32_t place;
  };
  const RowPasses& passes;
  Candidates kept;
  std::vector<float> maxima, bounds;
  std::vector<double> sums;
  std::vector<Entry> order;
};

// Min-p, then top-k, then top-p, each over what the former left; ties with the k-th stay, among equally probable ones
// the lowest id goes first into the smallest set that holds top_p of the mass. Returns false where all n tokens stay:
// then nothing is listed.
bool keep(const float* x, int64_t n, const DrawSettings& settings, SampleScratch& scratch);

// The same, all of them listed where all stay.
void list_kept(const float* x, int64_t n, const DrawSettings& settings, SampleScratch& scratch);

// The token at which `fraction` of the weight is exceeded, in the order of ids; fraction in [0, 1).
int64_t draw(const float* x, int64_t n, const DrawSettings& settings, double fraction, SampleScratch& scratch);

// log of the sum of exp(logit); peak: the largest logit, finite.
double log_total(const float* x, int64_t n, double peak, SampleScratch& scratch);

// best [num]: ids of the largest, the lowest id first among equals; num up to n.
void best_of(const float* x, int64_t n, int64_t num, int32_t* best, SampleScratch& scratch);

// How many logits are larger than one of them.
int64_t count_above(const float* x, int64_t n, float logit, const SampleScratch& scratch);

}  // namespace albireo
