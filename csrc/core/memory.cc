#include "albireo/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <system_error>

#include "albireo/system.h"
#include "albireo/types.h"

namespace albireo {
namespace {
constexpr int64_t kHugePage = 2 << 20;
}

Memory::Memory(int64_t bytes) : bytes_(bytes) {
  const bool huge = bytes >= kHugePage;
  mapped_ = huge ? round_up(bytes, kHugePage) + kHugePage : round_up(bytes > 0 ? bytes : 1, 4096);
  base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base_ == MAP_FAILED) throw std::bad_alloc();
  data_ = (char*)base_;
  if (huge) {
    data_ = (char*)round_up((int64_t)base_, kHugePage);
    wish_huge_pages(data_, mapped_ - (data_ - (char*)base_));
  }
}

void Memory::map(int fd, int64_t source, int64_t target, int64_t bytes) {
  if (source % 4096 || target % 4096 || bytes <= 0 || target + bytes > bytes_)
    throw std::system_error(EINVAL, std::generic_category(), "mapping a file");
  char* at = data_ + target;
  if (mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, source) == MAP_FAILED)
    throw std::system_error(errno, std::generic_category(), "mapping a file");
  wish_huge_pages(at, bytes);  // for file systems whose page cache has large folios
}

Memory::~Memory() { munmap(base_, mapped_); }

}  // namespace albireo
