#include "albireo/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "albireo/system.h"

namespace albireo {
namespace {

// How long to spin before giving the core away. Inside a step the wait is a matter of microseconds; on a machine whose
// cores are taken by others, yielding lets the late thread run. Between steps Python and tokenizers want the core.
constexpr int kSpinsBeforeYield = 1000;
constexpr auto kSpinBeforePark = std::chrono::microseconds(100);

// How many forks lie between this process and the one that loaded this library.
std::atomic<uint32_t> forks{0};
[[maybe_unused]] const int kNotesForks = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // yield is over at once on most cores; this takes about as long as a pause of x86
#endif
}

}  // namespace

void relax(int spins) {
  pause();
  if (spins % kSpinsBeforeYield == 0) sched_yield();
}

ThreadPool::ThreadPool(std::vector<int> cpus) : cpus_(std::move(cpus)), threads_((int64_t)cpus_.size()) { start(); }

void ThreadPool::start() {
  forks_ = forks.load();
  workers_.reserve(cpus_.size());
  for (int64_t i = 1; i < threads_; i++) {
    try {
      workers_.emplace_back(&ThreadPool::work, this, i, cpus_[i]);
    } catch (const std::system_error& error) {
      stop();
      forks_--;  // the next run tries again
      throw std::runtime_error("thread " + std::to_string(i + 1) + " cannot be started: " + error.what());
    }
  }
}

ThreadPool::~ThreadPool() { stop(); }

bool ThreadPool::is_forked() const { return forks_ != forks.load(std::memory_order_relaxed); }

void ThreadPool::forget() {
  // Never freed: to destroy a thread that was not joined ends the process, and who joins one of the parent's waits on.
  new std::vector<std::thread>(std::move(workers_));
  workers_.clear();
  stop_.store(false);
  generation_.store(0);  // what new threads have seen
}

void ThreadPool::stop() {
  if (is_forked()) forget();
  stop_.store(true, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::run(const std::function<void(int64_t)>& job) {
  std::lock_guard<std::mutex> only(one_run_);
  if (is_forked()) {
    forget();
    start();
  }
  job_ = &job;
  running_.store(threads_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  take_place();
  job(0);
  spin_until([this] { return running_.load(std::memory_order_acquire) == 0; });
}

// Where the workers have all processors but one, the caller is moved there: on any other it would share that with a
// worker, which cannot move, until the system looks at it again, and its weights would lie in another memory.
void ThreadPool::take_place() {
  if (cpus_[0] >= 0 && threads_ > 1) lead_to(cpus_[0]);
}

void ThreadPool::work(int64_t thread, int cpu) {
  settle_on(cpu);
  for (uint32_t seen = 0;;) {
    auto until = std::chrono::steady_clock::now() + kSpinBeforePark;
    while (generation_.load(std::memory_order_acquire) == seen) {
      for (int i = 0; i < 64 && generation_.load(std::memory_order_acquire) == seen; i++) pause();
      if (std::chrono::steady_clock::now() > until) generation_.wait(seen, std::memory_order_acquire);
    }
    seen = generation_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) return;
    (*job_)(thread);
    running_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace albireo
