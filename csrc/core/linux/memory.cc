#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "albireo/system.h"

namespace albireo {
namespace {

// linux/mempolicy.h is not everywhere that the system call is.
constexpr int kInterleave = 3;
constexpr int kMostNodes = 1024, kWordBits = 8 * sizeof(unsigned long);

}  // namespace

void wish_huge_pages(void* memory, int64_t bytes) { madvise(memory, bytes, MADV_HUGEPAGE); }

bool interleave_pages(void* memory, int64_t bytes, const std::vector<int>& nodes) {
  unsigned long mask[kMostNodes / kWordBits] = {};
  for (int node : nodes) {
    if (node < 0 || node >= kMostNodes) return false;
    mask[node / kWordBits] |= 1UL << node % kWordBits;
  }
  return syscall(SYS_mbind, memory, bytes, kInterleave, mask, kMostNodes, 0) == 0;
}

}  // namespace albireo
