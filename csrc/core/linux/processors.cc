#include <pthread.h>
#include <sched.h>

#include <cerrno>
#include <fstream>
#include <set>
#include <string>
#include <utility>
#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "albireo/system.h"

namespace albireo {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

cpu_set_t only(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return set;
}

}  // namespace

ArmFeatures arm_features() {
#if defined(__aarch64__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  return {(first & HWCAP_ASIMD) != 0, (first & HWCAP_ASIMDDP) != 0, (second & HWCAP2_I8MM) != 0,
          (second & HWCAP2_BF16) != 0};
#else
  return {};
#endif
}

bool saves_zmm(uint64_t xcr0) { return (xcr0 & 0xe0) == 0xe0; }

int request_tiles() {
#if defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {-1};
  std::set<std::pair<std::string, std::string>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &set)) continue;
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const std::string package = read_line(base + "physical_package_id"), core = read_line(base + "core_id");
    if (core.empty() || cores.insert({package, core}).second) cpus.push_back(cpu);
  }
  return cpus;
}

void settle_on(int cpu) {
  if (cpu < 0) return;
  const cpu_set_t set = only(cpu);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

void lead_to(int cpu) {
  if (sched_getcpu() == cpu) return;
  cpu_set_t allowed;
  if (pthread_getaffinity_np(pthread_self(), sizeof(allowed), &allowed) != 0 || !CPU_ISSET(cpu, &allowed)) return;
  const cpu_set_t own = only(cpu);
  if (pthread_setaffinity_np(pthread_self(), sizeof(own), &own) == 0)
    pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
}

}  // namespace albireo
