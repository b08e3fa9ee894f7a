// Which ISA levels this processor and its operating system grant.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace albireo {

// Levels this machine can run, best first, "scalar" last. Their meaning is isa_levels.txt.
std::vector<std::string> isa_levels();
// Levels that a processor of this kind may have, best first.
std::vector<std::string> known_levels();
// Levels whose instructions the processor has and that are off all the same, with the reason.
std::map<std::string, std::string> refused_levels();

}  // namespace albireo
