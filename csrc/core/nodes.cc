#include "albireo/nodes.h"

#include <stdexcept>

#include "albireo/system.h"

namespace albireo {
namespace {

constexpr int64_t kPage = 4096;

}  // namespace

void take_pages(ThreadPool& pool, Memory& memory, const std::vector<Span>& spans, int64_t first, int64_t threads) {
  if (first < 0 || threads < 1 || first + threads > pool.size())
    throw std::invalid_argument("pages are taken by threads that the pool has");
  for (const auto& [offset, bytes] : spans)
    if (offset < 0 || bytes < 0 || bytes > memory.bytes() - offset)
      throw std::invalid_argument("pages are taken of memory that there is");
  pool.run([&](int64_t thread) {
    const int64_t own = thread - first;
    if (own < 0 || own >= threads) return;
    for (const auto& [offset, bytes] : spans) {
      const int64_t begin = offset + bytes * own / threads, end = offset + bytes * (own + 1) / threads;
      for (int64_t at = begin; at < end; at = (at / kPage + 1) * kPage) *(volatile char*)(memory.data() + at) = 0;
    }
  });
}

bool take_in_turn(const Memory& memory, const std::vector<int>& nodes) {
  const int64_t whole = memory.bytes() / kPage * kPage;  // pages; the memory begins with one
  return nodes.empty() || whole == 0 || interleave_pages(memory.data(), whole, nodes);
}

}  // namespace albireo
