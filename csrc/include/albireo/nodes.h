// Machines with several memories (NUMA nodes): which of them pages lie in.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "albireo/memory.h"
#include "albireo/thread_pool.h"

namespace albireo {

// Offset and length in bytes.
using Span = std::pair<int64_t, int64_t>;

// Has `threads` of the pool's threads, from `first` on, each take the pages of its share of every span, as
// Program::work shares out items: a page comes from the memory near the thread that is first to write it. Of memory
// that nothing was written to: a byte of each page is set to 0. Throws std::invalid_argument for what lies outside.
void take_pages(ThreadPool& pool, Memory& memory, const std::vector<Span>& spans, int64_t first, int64_t threads);

// Has pages that are taken from now on come from these nodes in turn, or from others where they are full. A wish:
// containers may not make it without CAP_SYS_NICE. Returns whether it was granted.
bool take_in_turn(const Memory& memory, const std::vector<int>& nodes);

}  // namespace albireo
