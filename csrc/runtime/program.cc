#include "albireo/program.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "kernels/head_top/head_top.h"

namespace albireo {
namespace {

// Items claimed at once: many enough that claiming is free, few enough that no thread is left with a long tail.
int64_t claim_size(int64_t items, int64_t threads) { return std::max<int64_t>(1, items / (threads * 8)); }

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Program::Program(std::shared_ptr<ThreadPool> pool, int64_t max_top_rows)
    : pool_(std::move(pool)), top_keys_(std::max<int64_t>(1, max_top_rows)) {}

void Program::add(const Family* family, KernelFn run, const Args& args, bool barrier) {
  calls_.push_back({family, run, args, barrier});
  counters_ = std::vector<Counter>(calls_.size());
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
  for (Counter& c : counters_) c.next.store(0, std::memory_order_relaxed);
  std::fill_n(top_keys_.begin(), step.G, 0);
  pool_->run([&](int64_t thread) { walk(thread, step); });
  unpack_top_keys(top_keys_.data(), step.G, top_ids, top_values);
}

void Program::walk(int64_t thread, const Step& step) {
  Scratch scratch{scratch_[thread]->data(), scratch_bytes_};
  double before = profiling_ && thread == 0 ? now() : 0.0;
  for (size_t i = 0; i < calls_.size(); i++) {
    const Call& call = calls_[i];
    if (count_rows(step, call.args.rows) == 0) continue;
    const int64_t items = call.family->items(call.args, step), claim = claim_size(items, pool_->size());
    for (;;) {
      const int64_t begin = counters_[i].next.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= items) break;
      call.run(call.args, step, begin, std::min(begin + claim, items), scratch);
    }
    if (call.barrier) pool_->barrier().wait();
    if (profiling_ && thread == 0) {
      const double after = now();
      seconds_[i] = after - before;
      before = after;
    }
  }
}

}  // namespace albireo
