#include "kernels/expert_linear/pairs.h"

#include <algorithm>

namespace albireo {

// By counting: pairs of an expert stay in their order. Those of experts that have no matrix are the last one's.
void Pairs::sort(const Args& a, int64_t pairs) const {
  const auto owner = [&](int64_t p) { return std::min((int64_t)a.ids[p], a.num_experts); };
  const int64_t owners = num_owners(a);
  std::fill(starts, starts + owners + 1, 0);
  for (int64_t p = 0; p < pairs; p++) starts[owner(p) + 1]++;
  for (int64_t e = 0; e < owners; e++) starts[e + 1] += starts[e];
  for (int64_t p = 0; p < pairs; p++) order[starts[owner(p)]++] = (int32_t)p;
  // each start is now the next one's
  int64_t count = 0;
  for (int64_t e = 0, begin = 0; e < owners; begin = starts[e++]) {
    const Slabs cut(starts[e] - begin, kPairSlab);
    for (int64_t i = 0; i < cut.count; i++)
      slabs[count++] = {(int32_t)e, (int32_t)(begin + cut.begin(i)), (int32_t)(cut.end(i) - cut.begin(i)),
                        (int32_t)cut.chunk};
  }
  *num_slabs = count;
}

}  // namespace albireo
