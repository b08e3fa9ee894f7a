// Arrays of a step from Python -> Step: what they point at stays Python's. Each function throws std::invalid_argument
// for arrays that disagree, or name what the program does not have.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <vector>

#include "albireo/program.h"

namespace albireo {

using Ints = nanobind::ndarray<const int32_t, nanobind::c_contig, nanobind::device::cpu>;
using Rows2D = nanobind::ndarray<const float, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
using TopIds = nanobind::ndarray<int32_t, nanobind::shape<-1, kTopMost>, nanobind::c_contig, nanobind::device::cpu>;
using TopValues = nanobind::ndarray<float, nanobind::shape<-1, kTopMost>, nanobind::c_contig, nanobind::device::cpu>;

inline int64_t length(const Ints& a) { return (int64_t)a.size(); }

Step step_of(const Ints& token_ids, const Ints& positions, const Ints& slots, const Ints& query_start,
             const Ints& context_len, const Ints& block_table, const Ints& logit_rows, const Ints& top_rows,
             const Ints& top_counts, int64_t max_top_rows);

// A program with adapters wants the slot of every row, and slots that it has.
void check_adapters(const Program& program, const std::optional<Ints>& slots, int64_t rows);

// Where sequences of a step keep states, and what is kept of them besides.
void keep(const Program& program, Step& s, const std::optional<Ints>& slots, const std::optional<Ints>& snapshot_slots,
          const std::optional<Ints>& snapshot_rows);

// Rows that come with a step are those that the program reads, and as wide.
void give(const Program& program, Step& s, const std::vector<Rows2D>& given, const std::optional<Ints>& given_rows,
          const std::optional<Rows2D>& rope_rows);

// What rows see is in the cache once the step's own rows are.
void check_ends(const Step& s, const Ints& row_ends);

// The best logits of each row have a place.
void check_room(const Step& s, const TopIds& top_ids, const TopValues& top_values);

}  // namespace albireo
