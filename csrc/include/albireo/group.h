// Ranks of one model in one process: a bound program each, on its own part of the threads of one pool. They run a step
// together, and meet where one needs what the others computed.
#pragma once
#include <memory>
#include <vector>

#include "albireo/program.h"

namespace albireo {

class Group {
 public:
  // Programs of one pool whose threads it has exactly, in the order of their ranks. Throws std::invalid_argument when
  // their calls are not alike: ranks that do not meet at the same calls would wait for each other for ever.
  explicit Group(std::vector<std::shared_ptr<Program>> ranks);

  // Every rank walks its program; returns when all are done. top_ids and top_values: one array a rank, see
  // Program::run.
  void run(const Step& step, const std::vector<int32_t*>& top_ids, const std::vector<float*>& top_values);

  int64_t size() const { return (int64_t)ranks_.size(); }
  const Program& first() const { return *ranks_[0]; }
  int64_t max_top_rows() const { return ranks_[0]->top()->max_rows(); }

 private:
  std::vector<std::shared_ptr<Program>> ranks_;
  std::vector<std::pair<Program*, int64_t>> threads_;  // for each thread of the pool its rank, and its number there
};

}  // namespace albireo
