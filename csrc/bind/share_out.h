#pragma once
// Items among the threads of a pool, one claim after another.
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "albireo/thread_pool.h"

namespace albireo {

// work(begin, end) over all items, on all threads, each of which takes `claim` at a time.
template <class Work>
void share_out(ThreadPool& pool, int64_t items, int64_t claim, Work work) {
  std::atomic<int64_t> next{0};
  pool.run([&](int64_t) {
    for (int64_t begin = next.fetch_add(claim); begin < items; begin = next.fetch_add(claim))
      work(begin, std::min(begin + claim, items));
  });
}

}  // namespace albireo
