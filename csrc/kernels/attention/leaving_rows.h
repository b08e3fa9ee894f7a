// The rows that leave the model as a step of their own: what attention of these rows alone works on. A sequence of it
// is a run of neighbouring rows of one sequence; out of a prompt mostly one row leaves.
#pragma once
#include <vector>

#include "albireo/types.h"

namespace albireo {

class LeavingRows {
 public:
  // Returns the step; it points into this object until the next call, or is the step given, where all of its rows leave
  // in their order. Groups are left to the caller. Cost: O(S log B).
  const Step& plan(const Step& step);

 private:
  Step step_{};
  std::vector<int32_t> query_start_, context_len_, sequences_;
};

}  // namespace albireo
