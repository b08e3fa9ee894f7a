#include "albireo/group.h"

#include <stdexcept>

namespace albireo {

Group::Group(std::vector<std::shared_ptr<Program>> ranks) : ranks_(std::move(ranks)) {
  if (ranks_.empty() || ranks_.size() > (size_t)kMaxRanks)
    throw std::invalid_argument("a group has 1 to " + std::to_string(kMaxRanks) + " ranks");
  std::vector<Program*> all;
  for (const auto& rank : ranks_) {
    if (rank->pool() != ranks_[0]->pool()) throw std::invalid_argument("ranks of a group share one pool of threads");
    if (rank->outline() != ranks_[0]->outline() || rank->top()->max_rows() != max_top_rows())
      throw std::invalid_argument("ranks of a group must make the same calls");
    if (rank->state_slots() != first().state_slots())
      throw std::invalid_argument("ranks of a group must keep states of as many sequences");
    if (rank->adapter_slots() != first().adapter_slots())
      throw std::invalid_argument("ranks of a group must have slots for as many adapters");
    for (int64_t i = 0; i < rank->threads(); i++) threads_.emplace_back(rank.get(), i);
    all.push_back(rank.get());
  }
  if ((int64_t)threads_.size() != ranks_[0]->pool()->size())
    throw std::invalid_argument("ranks of a group have " + std::to_string(threads_.size()) + " threads, their pool " +
                                std::to_string(ranks_[0]->pool()->size()));
  for (Program* rank : all) rank->join(all);
}

void Group::run(const Step& step, const std::vector<int32_t*>& top_ids, const std::vector<float*>& top_values) {
  // All ranks are prepared before the first begins: a counter of the step before would read as done.
  for (const auto& rank : ranks_) rank->prepare(step);
  ranks_[0]->pool()->run([&](int64_t thread) { threads_[thread].first->walk(threads_[thread].second); });
  for (size_t i = 0; i < ranks_.size(); i++) ranks_[i]->finish(top_ids[i], top_values[i]);
}

}  // namespace albireo
