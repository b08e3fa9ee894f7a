#include "kernels/attention/leaving_rows.h"

#include <algorithm>

namespace albireo {

const Step& LeavingRows::plan(const Step& step) {
  const int64_t rows = count_rows(step, Rows::kS);
  const auto row_of = [&](int64_t i) { return gathered_row(step, Rows::kS, Gather::kOfT, i); };
  bool all_leave = rows == step.T;
  for (int64_t i = 0; i < rows && all_leave; i++) all_leave = row_of(i) == i;
  if (all_leave) return step;

  query_start_.clear(), context_len_.clear(), sequences_.clear();
  const int32_t* starts = step.query_start;
  for (int64_t i = 0, before = -2; i < rows; i++) {
    const int64_t row = row_of(i);
    if (row != before + 1 || row == starts[sequences_.back() + 1]) {
      // the last sequence that begins at the row or before it: those without rows begin where the next one does
      sequences_.push_back((int32_t)(std::upper_bound(starts, starts + step.B + 1, row) - starts - 1));
      query_start_.push_back((int32_t)i), context_len_.push_back(0);
    }
    context_len_.back() = step.positions[row] + 1;
    before = row;
  }
  query_start_.push_back((int32_t)rows);
  step_ = step;
  step_.T = rows, step_.B = (int64_t)sequences_.size();
  step_.query_start = query_start_.data(), step_.context_len = context_len_.data(), step_.sequences = sequences_.data();
  step_.whole_len = step.context_len;
  return step_;
}

}  // namespace albireo
