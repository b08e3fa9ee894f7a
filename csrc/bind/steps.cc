#include "bind/steps.h"

#include <stdexcept>
#include <string>

namespace albireo {
namespace {

// A program that keeps states wants a slot that it has for every sequence, each for one.
void check_states(const Program& program, const std::optional<Ints>& slots, int64_t sequences) {
  const int64_t count = program.state_slots();
  if (!count) return;
  if (!slots || length(*slots) != sequences) throw std::invalid_argument("states need a slot for every sequence");
  std::vector<bool> is_taken(count);
  for (int64_t i = 0; i < sequences; i++) {
    const int32_t slot = slots->data()[i];
    if (slot < 0 || slot >= count || is_taken[slot])
      throw std::invalid_argument("no such slot of states, or two sequences in one");
    is_taken[slot] = true;
  }
}

// Snapshots go to slots that nobody has, behind rows that there are.
void check_snapshots(const Program& program, const Step& s) {
  if (!s.snapshot_rows) return;
  const int64_t count = program.state_slots();
  std::vector<bool> is_taken(count);
  for (int64_t b = 0; b < s.B && count; b++) is_taken[s.state_slots[b]] = true;
  for (int64_t b = 0; b < s.B && count; b++) {
    const int32_t rows = s.snapshot_rows[b], slot = s.snapshot_slots[b];
    if (rows < 0 || rows > s.query_start[b + 1] - s.query_start[b])
      throw std::invalid_argument("a snapshot behind rows that a sequence does not have");
    if (!rows) continue;
    if (slot < 0 || slot >= count || is_taken[slot])
      throw std::invalid_argument("no such slot of states for a snapshot, or somebody has it");
    is_taken[slot] = true;
  }
}

}  // namespace

Step step_of(const Ints& token_ids, const Ints& positions, const Ints& slots, const Ints& query_start,
             const Ints& context_len, const Ints& block_table, const Ints& logit_rows, const Ints& top_rows,
             const Ints& top_counts, int64_t max_top_rows) {
  Step s{};
  s.T = length(token_ids), s.B = length(context_len), s.R = length(logit_rows), s.G = length(top_rows);
  s.kv_groups = s.T ? length(slots) / s.T : 1;
  s.max_blocks = s.B && s.kv_groups ? length(block_table) / (s.B * s.kv_groups) : 0;
  if (length(positions) != s.T || length(slots) != s.kv_groups * s.T || length(query_start) != s.B + 1 ||
      length(top_counts) != s.G)
    throw std::invalid_argument("step arrays disagree in length");
  if (s.G > max_top_rows) throw std::invalid_argument("more top rows than the program was made for");
  for (int64_t i = 0; i < s.G; i++)
    if (top_counts.data()[i] < 1 || top_counts.data()[i] > kTopMost)
      throw std::invalid_argument("top_counts must be 1 to " + std::to_string(kTopMost));
  s.token_ids = token_ids.data(), s.positions = positions.data(), s.slots = slots.data();
  s.query_start = query_start.data(), s.context_len = context_len.data(), s.block_table = block_table.data();
  s.logit_rows = logit_rows.data(), s.top_rows = top_rows.data(), s.top_counts = top_counts.data();
  return s;
}

void check_adapters(const Program& program, const std::optional<Ints>& slots, int64_t rows) {
  const int64_t count = program.adapter_slots();
  if (!count) return;
  if (!slots || length(*slots) != rows) throw std::invalid_argument("adapters need a slot for every row");
  for (int64_t i = 0; i < rows; i++)
    if (slots->data()[i] < -1 || slots->data()[i] >= count) throw std::invalid_argument("no such slot of adapters");
}

void keep(const Program& program, Step& s, const std::optional<Ints>& slots, const std::optional<Ints>& snapshot_slots,
          const std::optional<Ints>& snapshot_rows) {
  check_states(program, slots, s.B);
  if (slots) s.state_slots = slots->data();
  if (!snapshot_slots || !snapshot_rows) return;
  if (length(*snapshot_slots) != s.B || length(*snapshot_rows) != s.B)
    throw std::invalid_argument("step arrays disagree in length");
  s.snapshot_slots = snapshot_slots->data(), s.snapshot_rows = snapshot_rows->data();
  check_snapshots(program, s);
}

void give(const Program& program, Step& s, const std::vector<Rows2D>& given, const std::optional<Ints>& given_rows,
          const std::optional<Rows2D>& rope_rows) {
  if (given.size() > kMostGiven) throw std::invalid_argument("a step gives more rows than there are places");
  for (size_t i = 0; i < given.size(); i++) s.given[i] = given[i].data(), s.given_width[i] = (int64_t)given[i].shape(1);
  for (int64_t i = 0; i < kMostGiven; i++) {
    const int64_t width = program.given_width(i);
    if (!width) continue;
    if (!s.given[i] || s.given_width[i] != width || (int64_t)given[i].shape(0) != s.T)
      throw std::invalid_argument("the program reads rows that the step does not give, or of another width");
  }
  if (given_rows) {
    // they are in place of embeddings, or are added to them
    const int64_t width = program.embedding_width() ? program.embedding_width() : program.added_width(0);
    if (given.empty() || length(*given_rows) != s.T || s.given_width[0] != width)
      throw std::invalid_argument("given embeddings are not as many, or not as wide, as the program's");
    for (int64_t t = 0; t < s.T; t++)
      if (given_rows->data()[t] < -1 || given_rows->data()[t] >= (int64_t)given[0].shape(0))
        throw std::invalid_argument("a token's embedding is to be a row that the step does not give");
    s.given_rows = given_rows->data();
    for (size_t i = 1; i < kMostGiven; i++) {
      const int64_t width = program.added_width((int64_t)i);
      if (width && (i >= given.size() || s.given_width[i] != width || given[i].shape(0) != given[0].shape(0)))
        throw std::invalid_argument("the program adds rows that the step does not give, or of another width");
    }
  }
  if (!rope_rows) return;
  if ((int64_t)rope_rows->shape(0) != s.T || (int64_t)rope_rows->shape(1) != program.rope_width())
    throw std::invalid_argument("given rotations are not one for each row, or not as wide as the program's");
  s.rope_rows = rope_rows->data();
}

void check_ends(const Step& s, const Ints& row_ends) {
  if (length(row_ends) != s.T) throw std::invalid_argument("step arrays disagree in length");
  for (int64_t b = 0; b < s.B; b++)
    for (int64_t t = s.query_start[b]; t < s.query_start[b + 1]; t++)
      if (row_ends.data()[t] > s.context_len[b])
        throw std::invalid_argument("a row is to see positions that its sequence does not have");
}

void check_room(const Step& s, const TopIds& top_ids, const TopValues& top_values) {
  if ((int64_t)top_ids.shape(0) < s.G || (int64_t)top_values.shape(0) < s.G)
    throw std::invalid_argument("step arrays disagree in length");
}

}  // namespace albireo
