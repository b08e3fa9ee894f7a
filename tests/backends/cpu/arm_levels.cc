// Prints which levels an Arm processor has, and whether linears of weights in few bits are the same at each of them.
#include <cstdio>
#include <string>

#include "albireo/amx.h"
#include "albireo/cpu_info.h"

// What attention with tile registers is asked before it is used, which no Arm processor has: so its kernels need not be
// linked.
std::string albireo::attention_difference(const std::string&, const std::string&, float) {
  return "there are no tiles";
}

int main() {
  printf("levels");
  for (const std::string& level : albireo::isa_levels()) printf(" %s", level.c_str());
  printf("\n");
  for (const char* level : {"neondot", "neonmm"}) {
    const std::string difference = albireo::first_difference(level, "neon");
    printf("%s: %s\n", level, difference.empty() ? "the same" : difference.c_str());
  }
}
