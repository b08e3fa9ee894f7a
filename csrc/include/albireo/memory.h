// Anonymous memory, zero until touched, on huge pages where the kernel grants them; parts of it may be those of a file.
#pragma once
#include <cstddef>
#include <cstdint>

namespace albireo {

class Memory {
 public:
  // Throws std::bad_alloc when the address space is refused. Pages are taken from the machine when touched.
  explicit Memory(int64_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Puts `bytes` of a file, from `source` on, in the place of what is at `target`: read only, and in the machine once
  // for all processes that do so. Both are multiples of 4 KiB, and the file is long enough. Throws std::system_error.
  void map(int fd, int64_t source, int64_t target, int64_t bytes);

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_;
  int64_t bytes_, mapped_;
  void* base_;
};

}  // namespace albireo
