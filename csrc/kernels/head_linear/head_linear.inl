// Body of head_linear for one ISA level; include after linear.inl.
#include "kernels/head_linear/head_linear.h"

namespace {

// Panels of a head, as a linear of its own. Items are slab by slab, head by head, panel by panel.
ALBIREO_INLINE void run_head(const Args& of_head, const Slabs& slabs, int64_t slab, int64_t first_panel, int64_t first,
                             int64_t end, Scratch& scratch, MakePanels make) {
  float* c = (float*)scratch.base;
  scratch.held_row = -1;  // copies of rows are of another head's columns
  HeldPanels weight(make, of_head, scratch, (char*)(c + kMostChunk * kPanel));
  for (int64_t m = slabs.begin(slab); m < slabs.end(slab); m += slabs.chunk) {
    const int64_t left = slabs.end(slab) - m, rows = left < slabs.chunk ? left : slabs.chunk;
    for (int64_t panel = first; panel < end; panel++) {
      weight->product(m, rows, first_panel + panel, c, kPanel);
      finish_plain(of_head, c, m, rows, panel * kPanel);
    }
  }
}

inline void dispatch_head_linear(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch,
                                 MakePanels make) {
  const int64_t panels = linear_panels(a), of_slab = a.num_heads * panels;
  const Slabs slabs(count_rows(step, a.rows), a.tuning.slab_rows);
  Args of_head = a;
  of_head.x_stride = x_stride(a, a.num_heads * a.k), of_head.out_stride = out_stride(a, a.num_heads * a.n);
  for (int64_t item = begin; item < end;) {
    const int64_t head = item % of_slab / panels, first = item % panels;
    const int64_t stop = end - item < panels - first ? first + end - item : panels;
    of_head.x = (const char*)a.x + head * a.k * dtype_size(a.x_dtype);
    of_head.out = (char*)a.out + head * a.n * dtype_size(a.out_dtype);
    run_head(of_head, slabs, item / of_slab, head * panels, first, stop, scratch, make);
    item += stop - first;
  }
}

}  // namespace
