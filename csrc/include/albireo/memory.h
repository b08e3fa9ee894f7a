// Anonymous memory, zero until touched, on huge pages where the kernel grants them.
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

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_;
  int64_t bytes_, mapped_;
  void* base_;
};

}  // namespace albireo
