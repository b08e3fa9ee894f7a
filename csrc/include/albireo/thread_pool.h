// Own threads, pinned one per core; the caller is thread 0. No OpenMP: its spin policy is global and its pool fights
// others'. Within a run threads spin; between runs they spin a little, then park.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace albireo {

// Waits for a condition that other threads are about to make true: spins, then lets others have the core in between.
void relax(int spins);
template <class Condition>
void spin_until(Condition condition) {
  for (int spins = 1; !condition(); spins++) relax(spins);
}

class ThreadPool {
 public:
  // cpus: one a thread, the caller's first, -1: any; a thread is pinned to its cpu, the caller led there. Throws
  // std::runtime_error when the system starts no more threads.
  explicit ThreadPool(std::vector<int> cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int64_t size() const { return threads_; }
  const std::vector<int>& cpus() const { return cpus_; }

  // Calls job(thread) once on every thread and returns when all have returned. job must not throw.
  // One run at a time; a second caller waits. A process that was forked from the one which made this has none of its
  // threads; the first run there starts them anew, and throws where the constructor would.
  void run(const std::function<void(int64_t)>& job);

 private:
  void start();
  void take_place();
  void work(int64_t thread, int cpu);
  void stop();
  bool is_forked() const;
  void forget();

  const std::vector<int> cpus_;
  const int64_t threads_;
  uint32_t forks_;  // how often the process had been forked when the threads were started
  std::mutex one_run_;
  const std::function<void(int64_t)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};  // bumped to start a run; workers wait on it
  alignas(64) std::atomic<int64_t> running_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace albireo
