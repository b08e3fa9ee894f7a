// Which ISA levels this processor and its operating system grant.
#pragma once
#include <string>
#include <vector>

namespace albireo {

// Levels this machine can run, best first, "scalar" last. Their meaning is isa_levels.txt.
std::vector<std::string> isa_levels();

// Processors this process may run on, one per physical core where that can be told, in order.
std::vector<int> usable_cpus();

}  // namespace albireo
