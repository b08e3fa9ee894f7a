// y = x @ weight^T + bias, cut into H query, K key and K value heads of D columns; then, head by head,
//   q, k: optional RMS norm over D, rotation of channel pairs (i, i + D/2) by the row's position
//   q -> out [T, H * D] out_dtype;   k, v -> the KV cache at the row's slot, rounded to its dtype
// The unit of work is the smallest group of heads that fills whole panels, so a head never crosses threads.
// x [T, K] x_dtype; weight panels p64.<w_dtype> of (H + 2K) * D columns; rope [positions][2][D/2] float32.
// Rows depend on themselves only. Norm and rotation in float32.
// Reads: x weight bias q_norm k_norm rope kv kv_shape out num_heads n k eps x_dtype w_dtype out_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"

namespace albireo {
constexpr int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }
constexpr int64_t group_panels(int64_t head_dim) { return head_dim / gcd(head_dim, kPanel); }
constexpr int64_t qkv_panels(const Args& a) { return ceil_div(a.n, kPanel); }
constexpr int64_t qkv_groups(const Args& a) { return ceil_div(qkv_panels(a), group_panels(a.kv_shape.head_dim)); }
void qkv_rope_kv_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512vnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_amx_model(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kQkvRopeKv;
}  // namespace albireo
