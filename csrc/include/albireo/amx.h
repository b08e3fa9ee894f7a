// Whether the tile registers of AMX may be used: not before they have shown that they add up.
#pragma once
#include <string>

namespace albireo {

// Why the level amx is off on a processor that has it; empty: it is on. The first call asks the kernel for permission
// on behalf of the process, and runs first_difference("amx", "avx512vnni"): milliseconds.
// is_saved: whether the operating system saves tile registers.
const std::string& amx_refusal(bool is_saved);

// Runs linear at two levels on a few shapes and encodings whose sums are exact. The first output that is not the same
// in words, or that a level has no such kernel; empty: all the same. At the level "amx" only behind a permission.
std::string first_difference(const std::string& level, const std::string& trusted);

}  // namespace albireo
