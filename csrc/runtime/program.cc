#include "albireo/program.h"

#include <algorithm>
#include <chrono>
#include <functional>

namespace albireo {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Program::Program(std::shared_ptr<ThreadPool> pool, int64_t max_top_rows)
    : pool_(std::move(pool)), top_(pool_->size(), max_top_rows) {}

void Program::add(const Family* family, KernelFn run, const Args& args, bool barrier,
                  const std::array<Tuning, kNumBuckets>& tunings) {
  calls_.push_back({family, run, args, barrier, tunings});
  items_.assign(calls_.size(), 0);
  done_ = std::vector<Counter>(calls_.size());
  shares_ = std::vector<Counter>(calls_.size() * pool_->size());
  seconds_.assign(calls_.size(), 0.0);
  const int64_t bytes = family->scratch_bytes(args);
  if (bytes > scratch_bytes_) {
    scratch_bytes_ = bytes;
    scratch_.clear();
  }
}

void Program::run(const Step& step, int32_t* top_ids, float* top_values) {
  if (scratch_.empty())
    for (int64_t i = 0; i < pool_->size(); i++) scratch_.push_back(std::make_unique<Memory>(scratch_bytes_ + 64));
  for (Counter& c : shares_) c.value.store(0, std::memory_order_relaxed);
  for (Counter& c : done_) c.value.store(0, std::memory_order_relaxed);
  for (size_t i = 0; i < calls_.size(); i++) {
    Call& call = calls_[i];
    const int64_t rows = count_rows(step, call.args.rows);
    call.args.tuning = call.tunings[bucket_of(rows)];
    items_[i] = rows > 0 ? call.family->items(call.args, step) : 0;
  }
  top_.clear(step.G);
  pool_->run([&](int64_t thread) { walk(thread, step); });
  top_.best(step, top_ids, top_values);
}

// Each thread has a contiguous share of the items, so that it streams neighbouring weights; whoever is done first
// takes from the shares of the others, one item at a time. With one queue all items are one share, which all own.
void Program::work(int64_t thread, size_t index, const Step& step, Scratch& scratch) {
  const Call& call = calls_[index];
  const Tuning& tuning = call.args.tuning;
  const int64_t threads = pool_->size(), items = items_[index], shares = tuning.one_queue ? 1 : threads;
  const int64_t claims = tuning.claims * (threads / shares);
  int64_t finished = 0;
  scratch.held_row = -1;
  for (int64_t i = 0; i < shares; i++) {
    const int64_t owner = (thread + i) % shares;
    const int64_t first = items * owner / shares, last = items * (owner + 1) / shares;
    const int64_t claim = i > 0 ? 1 : std::max<int64_t>(1, (last - first) / claims);
    std::atomic<int64_t>& taken = shares_[index * threads + owner].value;
    while (taken.load(std::memory_order_relaxed) < last - first) {
      const int64_t begin = first + taken.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= last) break;
      const int64_t end = std::min(begin + claim, last);
      call.run(call.args, step, begin, end, scratch);
      finished += end - begin;
    }
  }
  if (finished > 0) done_[index].value.fetch_add(finished, std::memory_order_release);
}

// Threads meet by work, not by presence: a call is over when all its items are done. A thread that the machine has
// taken away holds up the others only if it was taken in the middle of an item.
void Program::walk(int64_t thread, const Step& step) {
  Scratch scratch{scratch_[thread]->data(), scratch_bytes_, thread};
  double before = profiling_ && thread == 0 ? now() : 0.0;
  size_t open = 0;  // calls before this one are known to be over
  for (size_t i = 0; i < calls_.size(); i++) {
    if (items_[i] > 0) {
      work(thread, i, step, scratch);
      if (calls_[i].barrier)
        for (; open <= i; open++)
          spin_until([&] { return done_[open].value.load(std::memory_order_acquire) == items_[open]; });
    }
    if (profiling_ && thread == 0) {
      const double after = now();
      seconds_[i] = after - before;
      before = after;
    }
  }
}

}  // namespace albireo
