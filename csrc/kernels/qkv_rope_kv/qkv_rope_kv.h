// y = x @ weight^T (+ adapters) + bias, cut into H query, K key and K value heads of D columns; then, head by head,
//   q, k: optional RMS norm over D, rotation of channel pairs (i, i + D/2) by the row's position
//   q -> out [T, H * D] out_dtype;   k, v -> the KV cache at the row's slot, rounded to its dtype
// The unit of work is the smallest group of heads that fills whole panels, so a head never crosses threads.
// x [T, K] x_dtype; weight panels p64.<w_dtype> of (H + 2K) * D columns; rope [positions][2][D/2] float32.
// With a v_weight, that has the columns of v, p64.<v_dtype>, and weight those of q and k; both multiply the same x.
// Rows depend on themselves only. Norm and rotation in float32.
// Reads: x weight bias v_weight v_bias q_norm k_norm rope kv kv_shape out num_heads k eps x_dtype w_dtype v_dtype
// out_dtype.
#pragma once
#include "albireo/kernel.h"
#include "albireo/split.h"

namespace albireo {
constexpr int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }
constexpr int64_t group_panels(int64_t head_dim) { return head_dim / gcd(head_dim, kPanel); }
// Heads that weight has the columns of, from the first on; groups of heads of a matrix.
constexpr int64_t merged_heads(const Args& a) { return a.num_heads + (a.v_weight ? 1 : 2) * a.kv_shape.num_kv_heads; }
constexpr int64_t head_groups(int64_t heads, int64_t head_dim) {
  return ceil_div(ceil_div(heads * head_dim, kPanel), group_panels(head_dim));
}
constexpr int64_t qkv_groups(const Args& a) {
  const KVShape& s = a.kv_shape;
  return head_groups(merged_heads(a), s.head_dim) + (a.v_weight ? head_groups(s.num_kv_heads, s.head_dim) : 0);
}
// As if v_weight were the weight; its bias is that of its own columns.
constexpr Args of_v(const Args& a) {
  Args v = a;
  v.weight = a.v_weight, v.bias = a.v_bias, v.w_dtype = a.v_dtype, v.group = a.v_group, v.affine = a.v_affine;
  return v;
}
void qkv_rope_kv_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avxvnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512vnni(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_avx512bf16(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_bf16_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_amx(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_neondot(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_integers_neonmm(const Args&, const Step&, int64_t, int64_t, Scratch&);
void qkv_rope_kv_amx_model(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kQkvRopeKv;
}  // namespace albireo
