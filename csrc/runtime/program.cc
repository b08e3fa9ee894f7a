#include "albireo/program.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "kernels/head_top/head_top.h"

namespace albireo {
namespace {

// Many enough that a thread that is late leaves work to take, few enough that claiming is free.
constexpr int64_t kClaimsPerShare = 8;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Program::Program(std::shared_ptr<ThreadPool> pool, int64_t max_top_rows)
    : pool_(std::move(pool)), top_keys_(std::max<int64_t>(1, max_top_rows)) {}

void Program::add(const Family* family, KernelFn run, const Args& args, bool barrier) {
  calls_.push_back({family, run, args, barrier});
  shares_ = std::vector<Share>(calls_.size() * pool_->size());
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
  for (Share& s : shares_) s.taken.store(0, std::memory_order_relaxed);
  std::fill_n(top_keys_.begin(), step.G, 0);
  pool_->run([&](int64_t thread) { walk(thread, step); });
  unpack_top_keys(top_keys_.data(), step.G, top_ids, top_values);
}

// Each thread has a contiguous share of the items, so that it streams neighbouring weights; whoever is done first
// takes from the shares of the others, one item at a time.
void Program::work(int64_t thread, const Call& call, Share* shares, const Step& step, Scratch& scratch) {
  const int64_t threads = pool_->size(), items = call.family->items(call.args, step);
  for (int64_t i = 0; i < threads; i++) {
    const int64_t owner = (thread + i) % threads;
    const int64_t first = items * owner / threads, last = items * (owner + 1) / threads;
    const int64_t claim = i > 0 ? 1 : std::max<int64_t>(1, (last - first) / kClaimsPerShare);
    for (;;) {
      const int64_t begin = first + shares[owner].taken.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= last) break;
      call.run(call.args, step, begin, std::min(begin + claim, last), scratch);
    }
  }
}

void Program::walk(int64_t thread, const Step& step) {
  Scratch scratch{scratch_[thread]->data(), scratch_bytes_};
  double before = profiling_ && thread == 0 ? now() : 0.0;
  for (size_t i = 0; i < calls_.size(); i++) {
    const Call& call = calls_[i];
    if (count_rows(step, call.args.rows) == 0) continue;
    work(thread, call, &shares_[i * pool_->size()], step, scratch);
    if (call.barrier) pool_->barrier().wait();
    if (profiling_ && thread == 0) {
      const double after = now();
      seconds_[i] = after - before;
      before = after;
    }
  }
}

}  // namespace albireo
