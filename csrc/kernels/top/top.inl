// Body of top for one ISA level; include after head_top.inl, which offers its tiles to the same lists.
#include "kernels/top/top.h"

namespace {

ALBIREO_INLINE void dispatch_top(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  for (int64_t item = begin; item < end; item++) {
    const int64_t row = item / top_chunks(a), first = item % top_chunks(a) * kTopChunk;
    const int64_t last = first + kTopChunk < a.n ? first + kTopChunk : a.n;
    const float* x = (const float*)a.x + row * x_stride(a, a.n);
    for (int64_t e = first; e < last; e += kPanel)
      offer(a.top->list(scratch.thread, row), step.top_counts[row], x + e, last - e < kPanel ? last - e : kPanel, e);
  }
}

}  // namespace
