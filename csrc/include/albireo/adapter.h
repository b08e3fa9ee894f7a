// Adapters of low rank (LoRA) of one linear, a slot each: y = x W^T + (x A^T) B^T, with A and B of the row's adapter.
// Plain data, as types.h; bind/adapters.cc fills it.
#pragma once
#include "albireo/types.h"

namespace albireo {

constexpr int64_t kMaxTargets = 4;   // matrices that were merged into one, each with an A of its own
constexpr int64_t kRankBlock = 4;    // rows of A that meet an x at once
constexpr int64_t kAdapterRows = 4;  // rows of x that meet an A at once, if they have the same adapter

struct Adapters {
  int64_t slots, targets, max_rank;
  int64_t k, leaves;     // inputs of a leaf, and leaves: of a linear in chunks each has sums of its own, x A^T as well
  int64_t panels;        // of the weight
  int64_t gate_columns;  // of a weight whose panels are half gate and half up: columns of the gate; else 0
  int64_t first[kMaxTargets], end[kMaxTargets];  // columns of each target in the merged matrix, before any interleaving
  const float* a;                                // [slots][targets][leaves][max_rank][round_up(k, 16)], zeros behind k
  const float* b;        // [slots][panels][max_rank][kPanel], columns as in the weight's panels, times the scale
  const int32_t* ranks;  // [slots][targets] rows of A in use; 0: this adapter leaves this matrix as it is
};

static constexpr int64_t a_stride(const Adapters& d) { return round_up(d.k, 16); }
static constexpr int64_t low_width(const Adapters& d) { return d.leaves * d.targets * d.max_rank; }
// Column of the merged matrix that a panel has at j. static: no ISA level may end up with the code of another.
static constexpr int64_t merged_column(const Adapters& d, int64_t panel, int64_t j) {
  if (!d.gate_columns) return panel * kPanel + j;
  const int64_t column = panel * kGateUpInterleave + j % kGateUpInterleave;
  return j < kGateUpInterleave ? column : d.gate_columns + column;
}

}  // namespace albireo
