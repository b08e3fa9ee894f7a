// The bound program: a flat list of calls whose kernels and addresses are fixed. Nothing is chosen or allocated in a
// step; all threads walk the list together.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "albireo/kernel.h"
#include "albireo/memory.h"
#include "albireo/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/groups.h"
#include "kernels/attention/leaving_rows.h"
#include "kernels/head_top/head_top.h"

namespace albireo {

class Program {
 public:
  // threads: how many of the pool walk this program; fewer than there are in a Group, whose ranks share a pool.
  Program(std::shared_ptr<ThreadPool> pool, int64_t max_top_rows, int64_t threads);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // barrier: the call is over before any later one begins. The memory behind args must outlive the program.
  // tunings: one a bucket of rows; a step takes that of the rows it has.
  void add(const Family* family, KernelFn run, const Args& args, bool barrier,
           const std::array<Tuning, kNumBuckets>& tunings = {});

  // Other numbers for every call, from the next step on.
  void retune(const std::array<Tuning, kNumBuckets>& tunings) {
    for (Call& call : calls_) call.tunings = tunings;
  }

  // Runs every call on every thread; returns when all are done. Calls over zero rows are skipped.
  // top_ids and top_values [G, kTopMost] receive the best logits of each row, as many as it wants; see TopLists.
  void run(const Step& step, int32_t* top_ids, float* top_values);

  // What run() is made of, for a Group: before the threads, on each of them (0 to threads - 1), behind them.
  void prepare(const Step& step);
  void walk(int64_t thread);
  void finish(int32_t* top_ids, float* top_values);

  // The programs of all ranks, this one too; from now on all_reduce waits for each of them.
  void join(std::vector<Program*> ranks) { ranks_ = std::move(ranks); }
  const std::shared_ptr<ThreadPool>& pool() const { return pool_; }
  int64_t threads() const { return threads_; }
  // One line a call: what must be alike in programs that run together.
  std::vector<std::string> outline() const;

  TopLists* top() { return &top_; }
  int64_t adapter_slots() const { return adapter_slots_; }  // that its calls know; 0: none has adapters
  int64_t state_slots() const { return state_slots_; }      // that its calls know; 0: none keeps a state
  // Columns of what it reads of a place of the step's given rows, of its embeddings, of its rotations; 0: it reads
  // none, -1: calls differ.
  int64_t given_width(int64_t place) const { return given_width_[place]; }
  int64_t added_width(int64_t place) const { return added_width_[place]; }
  int64_t embedding_width() const { return embedding_width_; }
  int64_t rope_width() const { return rope_width_; }
  const SequenceGroups& groups() const { return groups_; }  // of the last step, where the program has attention
  int64_t scratch_bytes() const { return scratch_bytes_; }
  // What a call ran with in the last step.
  const Tuning& last_tuning(size_t call) const { return calls_.at(call).args.tuning; }
  // Seconds thread 0 spent in each call (waiting at its barrier included) in the last run that was profiled.
  const std::vector<double>& profile(bool on) {
    profiling_ = on;
    return seconds_;
  }

 private:
  struct Call {
    const Family* family;
    KernelFn run;
    Args args;
    bool barrier;
    std::array<Tuning, kNumBuckets> tunings;
  };
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };

  void work(int64_t thread, size_t index, Scratch& scratch);
  void make_part_room(Step& leaving);
  bool is_private(size_t index) const { return private_rows_[index] > 0; }
  Args args_of(size_t index, char* rows) const;
  const Step& step_of(const Call& call) const {
    const bool leaves = call.family == &kAttention && call.args.rows == Rows::kS;
    return steps_[2 * call.args.kv_group + leaves];
  }
  int64_t scratch_end() const { return round_up(scratch_bytes_, 64); }  // where a thread's own rows begin
  bool is_over(size_t index) const { return done_[index].value.load(std::memory_order_acquire) == items_[index]; }

  std::shared_ptr<ThreadPool> pool_;
  const int64_t threads_;
  std::vector<Program*> ranks_;
  std::vector<Call> calls_;
  Step step_{};                        // at hand
  std::vector<Step> steps_;            // [kv_groups] it, and its rows that leave, which attention of these works on
  std::vector<int64_t> items_;         // [calls] of it
  std::vector<int64_t> private_rows_;  // [calls] rows that every thread computes for itself; such a call has no items
  std::vector<Counter> done_;          // [calls] items finished
  std::vector<Counter> taken_[2];      // [calls][threads] items claimed of a thread's share, in steps that take turns
  int turn_ = 0;                       // which of the two is this step's
  std::vector<std::unique_ptr<Memory>> scratch_;
  TopLists top_;
  SequenceGroups groups_, leaving_groups_;
  LeavingRows leaving_rows_;
  std::vector<float> part_sums_;  // see Step
  std::vector<int32_t> parts_done_;
  bool has_parts_ = false;
  std::vector<double> seconds_;
  int64_t scratch_bytes_ = 0, private_bytes_ = 0, adapter_slots_ = 0, state_slots_ = 0;
  int64_t given_width_[kMostGiven] = {}, added_width_[kMostGiven] = {}, embedding_width_ = 0, rope_width_ = 0;
  int64_t top_k_ = 0;      // experts of a token, where there are any
  int64_t kv_groups_ = 1;  // block tables that its calls read
  bool profiling_ = false;
};

}  // namespace albireo
