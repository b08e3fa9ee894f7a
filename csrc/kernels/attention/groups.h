// Which sequences of a step attention takes together: those whose first positions lie in the same blocks, so that the
// keys and values there are read, and meet full register tiles, once for all of them. Changes no bit: a row's
// arithmetic does not depend on the rows beside it.
#pragma once
#include <vector>

#include "albireo/kernel.h"

namespace albireo {

class SequenceGroups {
 public:
  // Sequences of few tokens are grouped where they share at least a quarter of their positions, in groups small enough
  // to give every thread an item. Where there are fewer items than that, or a few that see much more than others, their
  // positions are cut into parts. a: a call of the attention family. Writes order, groups and num_groups of the step,
  // which point into this object until the next call. Cost: O(B log B) comparisons of block tables.
  void plan(Step& step, const Args& a, int64_t threads);

  bool has_parts() const { return has_parts_; }
  const std::vector<int32_t>& order() const { return order_; }
  const std::vector<SharingGroup>& groups() const { return groups_; }

 private:
  std::vector<int32_t> order_;
  std::vector<SharingGroup> groups_;
  bool has_parts_ = false;
};

}  // namespace albireo
