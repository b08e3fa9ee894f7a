#include "albireo/cpu_info.h"

#include <cstdint>
#include <map>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "albireo/amx.h"
#include "albireo/system.h"

namespace albireo {
namespace {

#if defined(__x86_64__)
struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(uint32_t leaf, uint32_t sub) { __get_cpuid_count(leaf, sub, &eax, &ebx, &ecx, &edx); }
};

bool bit(uint32_t word, int n) { return word >> n & 1; }

// The register state that is saved when threads take turns: XCR0.
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
  return has_avx2() && saves_zmm(saved_state()) && bit(seven.ebx, 16) && bit(seven.ebx, 30) && bit(seven.ebx, 17) &&
         bit(seven.ebx, 31) && bit(seven.ebx, 28);
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
  const ArmFeatures has = arm_features();
  const bool neondot = has.neon && has.dotprod;
  std::vector<std::string> levels;
  if (neondot && has.i8mm && has.bf16) levels.push_back("neonmm");
  if (neondot) levels.push_back("neondot");
  if (has.neon) levels.push_back("neon");
  levels.push_back("scalar");
  return levels;
}

std::string refusal_of_amx() { return ""; }

const std::vector<std::string> kKnown{"neonmm", "neondot", "neon", "scalar"};
#endif

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

}  // namespace albireo
