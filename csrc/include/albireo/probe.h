// What the machine can do at best: the denominators of every published fraction.
#pragma once
#include <cstdint>
#include <string>

#include "albireo/thread_pool.h"

namespace albireo {

// Bytes per second of reading `bytes` (cut among the pool's threads), median-free: one pass over the whole.
double probe_read(ThreadPool& pool, const char* data, int64_t bytes);

// Operations per second (a multiply and an add are two) of independent dot or FMA chains in registers.
// kind: "float32" (FMA at the best level), "bfloat16" (vdpbf16ps), or "int8" (vpdpbusd, else
// vpmaddubsw); 0 where the processor has none.
double probe_dot(ThreadPool& pool, const std::string& kind, int64_t iterations);

}  // namespace albireo
