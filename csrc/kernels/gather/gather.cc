#include "kernels/gather/gather.h"

#include <cstring>

namespace albireo {
namespace {
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows); }
int64_t scratch_bytes(const Args&) { return 0; }

// One unit for all levels: a copy computes nothing, and memcpy picks its instructions itself.
constexpr Variant kVariants[] = {ALBIREO_SAME_AT_EVERY_LEVEL(gather, gather_rows)};
}  // namespace

void gather_rows(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  const int64_t size = dtype_size(a.out_dtype), from = x_stride(a, a.k) * size, to = out_stride(a, a.k) * size;
  for (int64_t i = begin; i < end; i++)
    memcpy((char*)a.out + i * to, (const char*)a.x + gathered_row(step, a.rows, a.gather, i) * from, a.k * size);
}

const Family kGather{"gather", items, scratch_bytes, kVariants};
}  // namespace albireo
