#include "kernels/all_reduce/all_reduce.h"

#include <algorithm>

namespace albireo {
namespace {

constexpr int64_t kColumns = 512;  // of one item: a row of a small step is still shared among threads

int64_t blocks(const Args& a) { return ceil_div(a.n, kColumns); }
int64_t items(const Args& a, const Step& s) { return count_rows(s, a.rows) * blocks(a); }
int64_t scratch_bytes(const Args&) { return 0; }

float tree(const Args& a, int64_t first, int64_t count, int64_t at) {
  if (count == 1) return a.parts[first][at];
  return tree(a, first, count / 2, at) + tree(a, first + count / 2, count / 2, at);
}

// One unit for all levels: sums that are written out give the same bits however wide the additions are.
constexpr Variant kVariants[] = {ALBIREO_SAME_AT_EVERY_LEVEL(all_reduce, all_reduce)};

}  // namespace

void all_reduce(const Args& a, const Step&, int64_t begin, int64_t end, Scratch&) {
  for (int64_t item = begin; item < end; item++) {
    const int64_t m = item / blocks(a), first = item % blocks(a) * kColumns, last = std::min(first + kColumns, a.n);
    const int64_t from = m * x_stride(a, a.n), to = m * out_stride(a, a.n);
    float* out = (float*)a.out + to;
    for (int64_t j = first; j < last; j++) {
      float sum = a.ranks == 2 ? a.parts[0][from + j] + a.parts[1][from + j] : tree(a, 0, a.ranks, from + j);
      if (a.bias) sum += a.bias[j];
      if (a.residual) sum += a.residual[to + j];
      out[j] = sum;
    }
  }
}

const Family kAllReduce{"all_reduce", items, scratch_bytes, kVariants};
}  // namespace albireo
