#include <pthread.h>
#include <sys/sysctl.h>

#include <cerrno>

#include "albireo/system.h"

namespace albireo {
namespace {

// Of 4 or 8 bytes; 0 where the system knows no such name.
int64_t number(const char* name) {
  int64_t found = 0;
  size_t size = sizeof(found);
  return sysctlbyname(name, &found, &size, nullptr, 0) == 0 ? found : 0;
}

}  // namespace

ArmFeatures arm_features() {
#if defined(__aarch64__)
  return {true, number("hw.optional.arm.FEAT_DotProd") == 1, number("hw.optional.arm.FEAT_I8MM") == 1,
          number("hw.optional.arm.FEAT_BF16") == 1};
#else
  return {};
#endif
}

// A thread is given these registers when it first uses them: before that, the processor says that they are not saved.
bool saves_zmm(uint64_t) { return number("hw.optional.avx512f") == 1; }

int request_tiles() { return ENOSYS; }

// Level 0 is that of the fastest cores. A step is over when the last thread is done with its share, and shares are
// alike: slower cores would hold it up.
std::vector<int> usable_cpus() {
  int64_t cores = number("hw.perflevel0.physicalcpu");
  if (cores < 1) cores = number("hw.physicalcpu");
  return std::vector<int>(cores < 1 ? 1 : cores, -1);
}

// Threads of this class go to the fast cores, where those are free.
void settle_on(int) { pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0); }

void lead_to(int) {}

}  // namespace albireo
