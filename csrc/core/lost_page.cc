// Only what may be called while a signal is handled: stat, write, sigaction; no memory is asked for.
#include "albireo/lost_page.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "albireo/system.h"

namespace albireo {
namespace {

struct sigaction before;

// Room for a path, and what is said of it.
struct Line {
  char text[sizeof(MappedFile) + 512];
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

bool is_there(const MappedFile& file) {
  struct stat found;
  return stat(file.path, &found) == 0 && (uint64_t)found.st_size > file.byte;
}

void on_lost_page(int number, siginfo_t* info, void*) {
  // Sent by a process, for which macOS has a number above 0: nothing is read again that would bring it back.
  if (info->si_code <= 0 || info->si_code == SI_USER) {
    sigaction(SIGBUS, &before, nullptr);
    raise(number);
    return;
  }
  // Threads may meet the same file at once: one speaks, the others read again until it has.
  static std::atomic_flag is_said = ATOMIC_FLAG_INIT;
  if (is_said.test_and_set()) return;
  const int error = errno;
  static Line words;  // not on a stack, which may be a small one
  static MappedFile file;
  if (mapped_file_at((uint64_t)info->si_addr, file)) {
    words.size = 0;
    add(words, "albireo: "), add(words, file.path);
    if (is_there(file)) {
      add(words, ": byte "), add(words, file.byte);
      add(words, " cannot be read from its disk any more; look at what the system's log says of it (dmesg)\n");
    } else {
      add(words, ": ends before byte "), add(words, file.byte);
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
