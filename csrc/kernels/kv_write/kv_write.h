// k, v -> the KV cache at the row's slot, rounded to its dtype; rows are those of T.
// x: k, y: v [T, K * D] float32, laid out alike; no y where the cache has keys alone. Row by row, as qkv_rope_kv writes
// them. Where several positions have one entry, it is what the row of the last of them has; other rows are not written.
// Reads: x y kv kv_shape rows x_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
void kv_write_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void kv_write_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void kv_write_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void kv_write_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kKvWrite;
}  // namespace albireo
