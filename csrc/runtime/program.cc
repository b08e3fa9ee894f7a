#include "albireo/program.h"

#include "albireo/adapter.h"
#include "kernels/embed/embed.h"
#include "kernels/given/given.h"
#include "kernels/linear/linear.h"
#include "kernels/qkv_rope_kv/qkv_rope_kv.h"
#include "kernels/rope/rope.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <stdexcept>

namespace albireo {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t agreed(int64_t known, int64_t width) { return known == 0 || known == width ? width : -1; }

}  // namespace

Program::Program(std::shared_ptr<ThreadPool> pool, int64_t max_top_rows, int64_t threads)
    : pool_(std::move(pool)), threads_(threads), top_(threads, max_top_rows) {
  if (threads < 1 || threads > pool_->size()) throw std::invalid_argument("a program needs threads that the pool has");
}

void Program::add(const Family* family, KernelFn run, const Args& args, bool barrier,
                  const std::array<Tuning, kNumBuckets>& tunings) {
  if (!calls_.empty() && calls_.back().args.is_private && args.x != calls_.back().args.out)
    throw std::invalid_argument("a private call is read by the next one");
  if (family == &kAttention && args.rows != Rows::kT && (args.rows != Rows::kS || args.gather == Gather::kOfS))
    throw std::invalid_argument("attention is of all rows, or of those that leave the model");
  if (args.top_k > 0 && top_k_ > 0 && args.top_k != top_k_)
    throw std::invalid_argument("calls of a program disagree about how many experts a token has");
  if (family == &kAttention && args.kv_group > 0 && args.window == 0)
    throw std::invalid_argument("only layers of the first block group see all positions");
  if (family == &kGiven || family == &kAddGiven) {
    if (args.n < 0 || args.n >= kMostGiven) throw std::invalid_argument("a step has no such place of given rows");
    int64_t& width = (family == &kGiven ? given_width_ : added_width_)[args.n];
    width = agreed(width, args.k);
  }
  if (family == &kEmbed && args.ids_of == IdsOf::kTokens) embedding_width_ = agreed(embedding_width_, args.k);
  if (family == &kRope) rope_width_ = agreed(rope_width_, args.k);
  if (family == &kQkvRopeKv) rope_width_ = agreed(rope_width_, args.kv_shape.head_dim);
  top_k_ = std::max(top_k_, args.top_k);
  kv_groups_ = std::max(kv_groups_, args.kv_group + 1);
  if (args.adapters) adapter_slots_ = args.adapters->slots;
  if (args.adapters && family == &kLinear && std::max<int64_t>(1, args.chunks) != args.adapters->leaves)
    throw std::invalid_argument("adapters of a linear have as many leaves as it has chunks");
  if (args.state_slots > 0 && state_slots_ > 0 && args.state_slots != state_slots_)
    throw std::invalid_argument("calls of a program disagree about how many slots for states there are");
  state_slots_ = std::max(state_slots_, args.state_slots);
  calls_.push_back({family, run, args, barrier, tunings});
  items_.assign(calls_.size(), 0);
  private_rows_.assign(calls_.size(), 0);
  done_ = std::vector<Counter>(calls_.size());
  for (std::vector<Counter>& taken : taken_) taken = std::vector<Counter>(calls_.size() * threads_);
  seconds_.assign(calls_.size(), 0.0);
  const int64_t own = args.is_private ? kFewRows * out_stride(args, args.k) * dtype_size(args.out_dtype) : 0;
  scratch_bytes_ = std::max(family->scratch_bytes(args), scratch_bytes_);
  private_bytes_ = std::max(own, private_bytes_);
  scratch_.clear();
}

void Program::run(const Step& step, int32_t* top_ids, float* top_values) {
  if (threads_ != pool_->size() || !ranks_.empty())
    throw std::invalid_argument("a rank of a group runs with the group");
  prepare(step);
  pool_->run([&](int64_t thread) { walk(thread); });
  finish(top_ids, top_values);
}

void Program::prepare(const Step& step) {
  if (step.kv_groups < kv_groups_) throw std::invalid_argument("a step has fewer block tables than calls read");
  step_ = step;
  step_.P = step.T * top_k_;
  // Sequences are grouped by the first block tables, for layers that see all positions: in others they share nothing.
  // Nor where entries are of several positions, which some layers choose from and others see all of.
  const Call* attention = nullptr;
  for (const Call& call : calls_) {
    const bool sees_all = call.args.window == 0 && call.args.kv_shape.every == 1;
    if (call.family == &kAttention && (!attention || sees_all)) {
      attention = &call;
      if (sees_all) break;
    }
  }
  Step leaving = step_;
  if (attention) {
    groups_.plan(step_, attention->args, threads_);
    leaving = leaving_rows_.plan(step_);
    if (leaving.sequences) leaving_groups_.plan(leaving, attention->args, threads_);
  }
  has_parts_ = attention && (groups_.has_parts() || (leaving.sequences && leaving_groups_.has_parts()));
  if (has_parts_) make_part_room(leaving);
  steps_.clear();
  for (int64_t group = 0; group < kv_groups_; group++)
    for (const Step& each : {step_, leaving}) {
      steps_.push_back(each);
      steps_.back().slots += group * step_.T, steps_.back().block_table += group * step_.B * step_.max_blocks;
    }
  if (scratch_.empty())
    for (int64_t i = 0; i < threads_; i++)
      scratch_.push_back(std::make_unique<Memory>(scratch_end() + private_bytes_ + 64));
  for (Counter& c : done_) c.value.store(0, std::memory_order_relaxed);
  for (size_t i = 0; i < calls_.size(); i++) {
    Call& call = calls_[i];
    const int64_t rows = count_rows(step_, call.args.rows);
    call.args.tuning = call.tunings[bucket_of(rows)];
    private_rows_[i] = call.args.is_private && threads_ > 1 && rows <= kFewRows ? rows : 0;
    items_[i] = rows > 0 && !is_private(i) ? call.family->items(call.args, step_of(call)) : 0;
  }
  top_.clear(step_.G);
}

// For the call that needs most of it: with parts no attention begins before the one before is over.
void Program::make_part_room(Step& leaving) {
  PartRoom most;
  for (const Call& call : calls_) {
    if (call.family != &kAttention) continue;
    const PartRoom room = part_room(call.args, call.args.rows == Rows::kS ? leaving : step_);
    most = {std::max(most.sums, room.sums), std::max(most.wholes, room.wholes)};
  }
  if ((int64_t)part_sums_.size() < most.sums) part_sums_.resize(most.sums);
  if ((int64_t)parts_done_.size() < most.wholes) parts_done_.resize(most.wholes);
  step_.part_sums = leaving.part_sums = part_sums_.data();
  step_.parts_done = leaving.parts_done = parts_done_.data();
}

void Program::finish(int32_t* top_ids, float* top_values) {
  turn_ ^= 1;  // only here: a step whose threads never began leaves counters that still are 0
  top_.best(step_, top_ids, top_values);
}

std::vector<std::string> Program::outline() const {
  std::vector<std::string> lines;
  for (const Call& c : calls_)
    lines.push_back(std::string(c.family->name) + " of rows " + std::to_string((int)c.args.rows) + ", " +
                    std::to_string(c.args.ranks) + " ranks");
  return lines;
}

// Each thread has a contiguous share of the items, so that it streams neighbouring weights; whoever is done first
// takes from the shares of the others, one item at a time. With one queue all items are one share, which all own.
// A thread claims a fraction of what is left of its share, so the last claims are single items: what is claimed cannot
// be taken by others, who would wait for it. What it has done it tells before it looks at the next share: with many
// threads all those looks take longer than an item, and the others wait for what is told last.
void Program::work(int64_t thread, size_t index, Scratch& scratch) {
  const Call& call = calls_[index];
  const Tuning& tuning = call.args.tuning;
  const int64_t threads = threads_, items = items_[index], shares = tuning.one_queue ? 1 : threads;
  const int64_t claims = tuning.claims * (threads / shares);
  scratch.held_row = -1, scratch.held_slab = -2;
  const Args args = args_of(index, scratch.base + scratch_end());
  for (int64_t i = 0; i < shares && (i == 0 || !is_over(index)); i++) {
    const int64_t owner = (thread + i) % shares;
    const int64_t first = items * owner / shares, last = items * (owner + 1) / shares;
    std::atomic<int64_t>& taken = taken_[turn_][index * threads + owner].value;
    int64_t finished = 0;
    for (int64_t left; (left = last - first - taken.load(std::memory_order_relaxed)) > 0;) {
      const int64_t claim = i > 0 ? 1 : std::max<int64_t>(1, left / claims);
      const int64_t begin = first + taken.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= last) break;
      const int64_t end = std::min(begin + claim, last);
      call.run(args, step_of(call), begin, end, scratch);
      finished += end - begin;
    }
    if (finished > 0) done_[index].value.fetch_add(finished, std::memory_order_release);
  }
}

// What a call reads and writes: of a private call, and where the next one reads from it, the thread's own rows.
Args Program::args_of(size_t index, char* rows) const {
  Args args = calls_[index].args;
  if (is_private(index)) args.out = rows;
  if (index > 0 && is_private(index - 1)) args.x = rows;
  return args;
}

// Threads meet by work, not by presence: a call is over when all its items are done. A thread that the machine has
// taken away holds up the others only if it was taken in the middle of an item.
// Few rows of a norm are computed by every thread for itself, with no barrier behind them: it takes less time. A thread
// that is late may read rows that others overwrite already, but they do so behind a barrier that is only met when the
// next call's items are all taken: nothing comes of what it makes of them.
// Ranks meet the same way, at all_reduce: before it, all that any rank does earlier is over, so every part is there;
// behind it every rank has read the parts, so that they may be overwritten.
void Program::walk(int64_t thread) {
  Scratch scratch{scratch_[thread]->data(), scratch_bytes_, thread};
  // Of its own share, for the step after this one: by one thread for all of them this would take a step's time.
  for (size_t i = 0; i < calls_.size(); i++)
    taken_[turn_ ^ 1][i * threads_ + thread].value.store(0, std::memory_order_relaxed);
  double before = profiling_ && thread == 0 ? now() : 0.0;
  size_t open = 0, open_ranks = 0;  // calls before this one are known to be over, here and on every rank
  const auto meet_ranks = [&](size_t end) {
    for (; open_ranks < end; open_ranks++)
      for (const Program* rank : ranks_) spin_until([&] { return rank->is_over(open_ranks); });
  };
  for (size_t i = 0; i < calls_.size(); i++) {
    if (is_private(i)) {
      calls_[i].run(args_of(i, scratch.base + scratch_end()), step_, 0, private_rows_[i], scratch);
    } else if (items_[i] > 0) {
      const bool of_ranks = calls_[i].args.ranks > 0;
      if (of_ranks) meet_ranks(i);
      work(thread, i, scratch);
      if (of_ranks) meet_ranks(i + 1);
      else if (calls_[i].barrier || (has_parts_ && calls_[i].family == &kAttention))
        for (; open <= i; open++) spin_until([&] { return is_over(open); });
    }
    if (profiling_ && thread == 0) {
      const double after = now();
      seconds_[i] = after - before;
      before = after;
    }
  }
}

}  // namespace albireo
