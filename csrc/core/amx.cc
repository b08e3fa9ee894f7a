#include "albireo/amx.h"

#include <cerrno>
#include <cstring>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace albireo {
namespace {

// Tile registers are 8 KiB a thread: Linux gives them to a process that has asked. 0, or what went wrong.
int request_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

std::string refusal(bool is_saved) {
  if (!is_saved) return "the operating system does not save tile registers";
  if (const int error = request_tiles())
    return std::string("the operating system refuses tile registers to this process: ") + strerror(error);
  const std::string difference = first_difference("amx", "avx512vnni");
  return difference.empty() ? "" : "its self-test failed: " + difference;
}

}  // namespace

const std::string& amx_refusal(bool is_saved) {
  static const std::string found = refusal(is_saved);
  return found;
}

}  // namespace albireo
