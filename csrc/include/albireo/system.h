// What the operating system is asked, and how it is told: for Linux in core/linux/, for macOS in core/macos/. Whatever
// else the core asks of a system is of C++ or of POSIX.
#pragma once
#include <cstdint>
#include <vector>

namespace albireo {

// -- processors: processors.cc ----------------------------------------------------------------------------------------

// All false on processors of another kind.
struct ArmFeatures {
  bool neon = false, dotprod = false, i8mm = false, bf16 = false;
};
ArmFeatures arm_features();

// Of an x86-64 processor, whether the registers of AVX-512 are saved when threads take turns. xcr0: what the processor
// itself says is saved now.
bool saves_zmm(uint64_t xcr0);

// Has tile registers, which are 8 KiB a thread, given to this process. 0, or what went wrong: a number of errno.
int request_tiles();

// Processors this process may run on, one per physical core where that can be told, in order; -1 in place of each where
// threads cannot be kept to one.
std::vector<int> usable_cpus();

// What a thread of a pool does first: it is kept to its processor from now on; -1: it may run on any. A hint: a refusal
// costs speed, not correctness.
void settle_on(int cpu);

// Moves the calling thread to a processor, once: it may go where it likes at once, and mostly stays. A hint, too.
void lead_to(int cpu);

// -- memory: memory.cc ------------------------------------------------------------------------------------------------

// A wish for pages of 2 MiB.
void wish_huge_pages(void* memory, int64_t bytes);

// Has whole pages that are taken from now on come from these nodes in turn. Returns whether that was granted.
bool interleave_pages(void* memory, int64_t bytes, const std::vector<int>& nodes);

// -- mapped files: mapped_files.cc ------------------------------------------------------------------------------------

// path: with its end; Linux has 4,096 bytes at most, and tells a newline among them as four.
struct MappedFile {
  char path[4 * 4096 + 256];
  uint64_t byte;
};

// The file that is mapped at an address, and which of its bytes that is; false: none. Only what may be done while a
// signal is handled.
bool mapped_file_at(uint64_t address, MappedFile& found);

}  // namespace albireo
