// Body of expert_linear for one ISA level; include after linear.inl.
#include <cstring>

#include "kernels/expert_linear/expert_linear.h"

namespace {

// The rows of x that a slab's pairs read: where they lie, when there is one, else side by side in scratch.
inline const char* gathered(const Args& a, const Pairs& pairs, const PairSlab& slab, char* memory) {
  const int64_t stride = x_stride(a, a.k) * dtype_size(a.x_dtype), bytes = row_bytes(a), to = gathered_stride(a);
  const auto source = [&](int64_t i) {
    const int64_t pair = pairs.order[slab.first + i];
    return (const char*)a.x + (a.of_pairs ? pair : pair / a.top_k) * stride;
  };
  if (slab.rows == 1) return source(0);
  for (int64_t i = 0; i < slab.rows; i++) memcpy(memory + i * to, source(i), bytes);
  return memory;
}

// A run of one slab's panels. Of experts that have no matrix rows are zeros, as every act of zeros is.
ALBIREO_INLINE void run_slab(const Args& a, const Pairs& pairs, const PairSlab& slab, int64_t first, int64_t end,
                             float* c, Scratch& scratch, MakePanels make) {
  const int64_t of_expert = slab.expert * linear_panels(a);
  HeldPanels weight(make, a, scratch, (char*)(c + kMostChunk * kPanel));
  for (int64_t panel = first; panel < end; panel++)
    for (int64_t m = 0; m < slab.rows; m += slab.chunk) {
      const int64_t rows = slab.rows - m < slab.chunk ? slab.rows - m : slab.chunk;
      if (slab.expert < a.num_experts) weight->product(m, rows, of_expert + panel, c, kPanel);
      else memset(c, 0, rows * kPanel * sizeof(float));
      for (int64_t i = 0; i < rows; i++) {
        const int64_t pair = pairs.order[slab.first + m + i];
        const float* row = c + i * kPanel;
        if (is_gated(a.act)) finish_gate_up(a, row, pair, 1, panel);
        else finish_plain(a, row, pair, 1, panel * kPanel);
      }
    }
}

// Panels of slabs are units, panels of a slab side by side: a thread that goes on among them has the slab's rows at
// hand already. Items are their even parts.
inline void dispatch_expert_linear(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch,
                                   MakePanels make) {
  float* c = (float*)scratch.base;
  char* memory = scratch.base + kMostChunk * kPanel * 4 + round_up(product_scratch_bytes(a), 64);
  const Pairs pairs(a, memory);
  char* rows = memory + Pairs::bytes(a);
  if (scratch.held_slab == -2) pairs.sort(a, step.P), scratch.held_slab = -1;
  const int64_t panels = linear_panels(a), units = *pairs.num_slabs * panels;
  const int64_t items = panels * most_slabs(a, step.P), last = end * units / items;
  for (int64_t unit = begin * units / items; unit < last;) {
    const int64_t index = unit / panels, first = unit % panels;
    const int64_t stop = first + last - unit < panels ? first + last - unit : panels;
    const PairSlab& slab = pairs.slabs[index];
    Args of_slab = a;
    const bool has_matrix = slab.expert < a.num_experts;
    if (scratch.held_slab != index && has_matrix) scratch.held_row = -1, gathered(a, pairs, slab, rows);
    scratch.held_slab = index;
    of_slab.x = slab.rows == 1 ? gathered(a, pairs, slab, rows) : rows;
    if (a.bias) of_slab.bias = has_matrix ? a.bias + slab.expert * panels * kPanel : nullptr;
    of_slab.x_stride = gathered_stride(a) / dtype_size(a.x_dtype);
    run_slab(of_slab, pairs, slab, first, stop, c, scratch, make);
    unit += stop - first;
  }
}

}  // namespace
