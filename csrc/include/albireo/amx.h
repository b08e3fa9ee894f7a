// Whether the tile registers of AMX may be used: not before they have shown that they add up.
#pragma once
#include <string>

namespace albireo {

// Why the level amx is off on a processor that has it; empty: it is on. The first call asks the kernel for permission
// on behalf of the process, and runs the two below against the next levels: milliseconds.
// is_saved: whether the operating system saves tile registers.
const std::string& amx_refusal(bool is_saved);

// Runs linear at two levels on a few shapes and encodings whose sums are exact. The first output that is not the same
// in words, or that a level has no such kernel; empty: all the same. At the level "amx" only behind a permission.
std::string first_difference(const std::string& level, const std::string& trusted);

// Runs attention in bfloat16 at two levels. The first output that differs by more than the bound, where outputs are
// about 0.1 and values up to 2; or that a level has no such kernel; empty: none does.
constexpr float kAttentionBound = 0x1p-12f;
std::string attention_difference(const std::string& level, const std::string& trusted, float bound = kAttentionBound);

}  // namespace albireo
