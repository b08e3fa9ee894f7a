// Only what may be called while a signal is handled: open, read, fstat, write, sigaction; no memory is asked for.
#include "albireo/lost_page.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace albireo {
namespace {

struct sigaction before;

// A path has 4,096 bytes at most, and a newline in it stands there as four.
struct Line {
  char text[4 * 4096 + 256];
  size_t size = 0;
};

// Cut where there is no room.
void add(Line& line, const char* text) {
  const size_t room = sizeof(line.text) - line.size, size = strlen(text);
  memcpy(line.text + line.size, text, size < room ? size : room);
  line.size += size < room ? size : room;
}

void add(Line& line, uint64_t number) {
  char digits[21];
  char* at = digits + 20;
  *at = 0;
  do *--at = (char)('0' + number % 10);
  while (number /= 10);
  add(line, at);
}

uint64_t hex(const char*& at) {
  uint64_t number = 0;
  for (;; at++) {
    const int digit = *at >= '0' && *at <= '9' ? *at - '0' : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10 : -1;
    if (digit < 0) return number;
    number = number << 4 | (uint64_t)digit;
  }
}

// The next line of a file, without its newline; false at the end. What is too long loses its end.
bool next_line(int fd, Line& line) {
  line.size = 0;
  for (char c; read(fd, &c, 1) == 1;) {
    if (c == '\n') return true;
    if (line.size < sizeof(line.text) - 1) line.text[line.size++] = c;
  }
  return false;
}

// The file that is mapped at an address, and which of its bytes that is. Lines read
// "from-to permissions offset device inode   path"; what is no file has no path that begins with a slash.
const char* file_at(uint64_t address, Line& line, uint64_t& byte) {
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  const char* found = nullptr;
  while (fd >= 0 && next_line(fd, line)) {
    line.text[line.size] = 0;
    const char* at = line.text;
    const uint64_t from = hex(at);
    const uint64_t to = *at == '-' ? hex(++at) : 0;
    if (address < from || address >= to) continue;
    if (const char* permissions = strchr(at, ' '))
      if (const char* offset = strchr(permissions + 1, ' ')) byte = address - from + hex(++offset);
    found = strchr(at, '/');
    break;
  }
  if (fd >= 0) close(fd);
  return found;
}

bool is_there(const char* path, uint64_t byte) {
  struct stat found;
  return stat(path, &found) == 0 && (uint64_t)found.st_size > byte;
}

void on_lost_page(int number, siginfo_t* info, void*) {
  if (info->si_code <= 0) {  // sent by a process: nothing is read again that would bring it back
    sigaction(SIGBUS, &before, nullptr);
    raise(number);
    return;
  }
  // Threads may meet the same file at once: one speaks, the others read again until it has.
  static std::atomic_flag is_said = ATOMIC_FLAG_INIT;
  if (is_said.test_and_set()) return;
  const int error = errno;
  static Line line, words;  // not on a stack, which may be a small one
  uint64_t byte = 0;
  if (const char* path = file_at((uint64_t)info->si_addr, line, byte)) {
    words.size = 0;
    add(words, "albireo: "), add(words, path);
    if (is_there(path, byte)) {
      add(words, ": byte "), add(words, byte);
      add(words, " cannot be read from its disk any more; look at what the system's log says of it (dmesg)\n");
    } else {
      add(words, ": ends before byte "), add(words, byte);
      add(words,
          " now, which it had when it was opened; something writes to it: wait until that is done and start "
          "again, and replace files by renaming others to their names\n");
    }
    if (write(STDERR_FILENO, words.text, words.size) < 0) errno = 0;  // nobody listens
  }
  sigaction(SIGBUS, &before, nullptr);  // and the same read again
  errno = error;
}

}  // namespace

void name_lost_pages() {
  static const int done = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_lost_page;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &before);
  }();
  (void)done;
}

}  // namespace albireo
