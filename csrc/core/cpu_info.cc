#include "albireo/cpu_info.h"

#include <sched.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "albireo/amx.h"

namespace albireo {
namespace {

#if defined(__x86_64__)
struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(uint32_t leaf, uint32_t sub) { __get_cpuid_count(leaf, sub, &eax, &ebx, &ecx, &edx); }
};

bool bit(uint32_t word, int n) { return word >> n & 1; }

// The register state the operating system saves: XCR0.
uint64_t saved_state() {
  if (!bit(Cpuid(1, 0).ecx, 27)) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

bool has_avx2() {
  const Cpuid one(1, 0), seven(7, 0);
  return (saved_state() & 0x6) == 0x6 && bit(seven.ebx, 5) && bit(one.ecx, 12) && bit(one.ecx, 29);
}

bool has_avxvnni() { return has_avx2() && bit(Cpuid(7, 1).eax, 4); }

bool has_avx512() {  // F BW DQ VL CD
  const Cpuid seven(7, 0);
  return has_avx2() && (saved_state() & 0xe6) == 0xe6 && bit(seven.ebx, 16) && bit(seven.ebx, 30) &&
         bit(seven.ebx, 17) && bit(seven.ebx, 31) && bit(seven.ebx, 28);
}

bool has_avx512vnni() { return has_avx512() && bit(Cpuid(7, 0).ecx, 11); }

bool has_avx512bf16() {  // + BF16 VBMI VBMI2
  const Cpuid seven(7, 0), more(7, 1);
  return has_avx512vnni() && bit(more.eax, 5) && bit(seven.ecx, 1) && bit(seven.ecx, 6);
}

bool has_amx() {  // + TILE INT8 BF16; whether they may be used is another question
  const uint32_t features = Cpuid(7, 0).edx;
  return has_avx512bf16() && bit(features, 24) && bit(features, 25) && bit(features, 22);
}
bool saves_tiles() { return (saved_state() & 0x60000) == 0x60000; }

std::vector<std::string> find_levels() {
  std::vector<std::string> levels;
  if (has_amx() && amx_refusal(saves_tiles()).empty()) levels.push_back("amx");
  if (has_avx512bf16()) levels.push_back("avx512bf16");
  if (has_avx512vnni()) levels.push_back("avx512vnni");
  if (has_avx512()) levels.push_back("avx512");
  if (has_avxvnni()) levels.push_back("avxvnni");
  if (has_avx2()) levels.push_back("avx2");
  levels.push_back("scalar");
  return levels;
}

std::string refusal_of_amx() { return has_amx() ? amx_refusal(saves_tiles()) : ""; }

const std::vector<std::string> kKnown{"amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "scalar"};
#elif defined(__aarch64__)
std::vector<std::string> find_levels() {
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  const bool neon = first & HWCAP_ASIMD, neondot = neon && first & HWCAP_ASIMDDP;
  std::vector<std::string> levels;
  if (neondot && second & HWCAP2_I8MM && second & HWCAP2_BF16) levels.push_back("neonmm");
  if (neondot) levels.push_back("neondot");
  if (neon) levels.push_back("neon");
  levels.push_back("scalar");
  return levels;
}

std::string refusal_of_amx() { return ""; }

const std::vector<std::string> kKnown{"neonmm", "neondot", "neon", "scalar"};
#endif

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

// Asked for every matrix that is packed; on a virtual machine each cpuid is a way out of it and back.
std::vector<std::string> isa_levels() {
  static const std::vector<std::string> levels = find_levels();
  return levels;
}

std::vector<std::string> known_levels() { return kKnown; }

std::map<std::string, std::string> refused_levels() {
  const std::string refusal = refusal_of_amx();
  return refusal.empty() ? std::map<std::string, std::string>{} : std::map<std::string, std::string>{{"amx", refusal}};
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

}  // namespace albireo
