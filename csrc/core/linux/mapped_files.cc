// Only open, read and close: no memory is asked for.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "albireo/system.h"

namespace albireo {
namespace {

uint64_t hex(const char*& at) {
  uint64_t number = 0;
  for (;; at++) {
    const int digit = *at >= '0' && *at <= '9' ? *at - '0' : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10 : -1;
    if (digit < 0) return number;
    number = number << 4 | (uint64_t)digit;
  }
}

// The next line of a file, without its newline; false at the end. What is too long loses its end.
template <size_t kRoom>
bool next_line(int fd, char (&line)[kRoom]) {
  size_t size = 0;
  for (char c; read(fd, &c, 1) == 1;) {
    if (c == '\n') {
      line[size] = 0;
      return true;
    }
    if (size < kRoom - 1) line[size++] = c;
  }
  return false;
}

}  // namespace

// Lines read "from-to permissions offset device inode   path"; what is no file has no path that begins with a slash.
bool mapped_file_at(uint64_t address, MappedFile& found) {
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  const char* path = nullptr;
  while (fd >= 0 && next_line(fd, found.path)) {
    const char* at = found.path;
    const uint64_t from = hex(at);
    const uint64_t to = *at == '-' ? hex(++at) : 0;
    if (address < from || address >= to) continue;
    if (const char* permissions = strchr(at, ' '))
      if (const char* offset = strchr(permissions + 1, ' ')) found.byte = address - from + hex(++offset);
    path = strchr(at, '/');
    break;
  }
  if (fd >= 0) close(fd);
  if (path) memmove(found.path, path, strlen(path) + 1);
  return path != nullptr;
}

}  // namespace albireo
