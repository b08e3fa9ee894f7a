// Body of qkv_rope_kv for one ISA level.
#include "kernels/qkv_rope_kv/qkv_rope_kv.h"
#include "simd/rms.inl"

#include <cstring>

namespace {

ALBIREO_INLINE void normalize_head(float* head, int64_t d, const float* weight, float eps) {
  const V factor = set1(rms_factor(head, d, eps));
  for (int64_t e = 0; e < d; e += 16) {
    const int64_t n = d - e;
    V v = mul(mul(n >= 16 ? load(head + e) : load_n(head + e, n), factor), load(weight + e));
    store_as(DType::kF32, head, e, v, n);
  }
}

ALBIREO_INLINE void rotate_head(float* head, int64_t d, const float* table) {
  const int64_t half = d / 2;
  const float *cos = table, *sin = table + half;
  for (int64_t e = 0; e < half; e += 16) {
    const int64_t n = half - e;
    V a, b, c, s;
    if (n >= 16) a = load(head + e), b = load(head + half + e), c = load(cos + e), s = load(sin + e);
    else a = load_n(head + e, n), b = load_n(head + half + e, n), c = load_n(cos + e, n), s = load_n(sin + e, n);
    V low = sub(mul(a, c), mul(b, s)), high = add(mul(b, c), mul(a, s));
    store_as(DType::kF32, head, e, low, n);
    store_as(DType::kF32, head, half + e, high, n);
  }
}

// One head of one token into the cache. is_last_written: the next position is not written in this step, so the odd
// half of a pair of V that is started here is cleared (attention reads whole pairs, and stale bits may be NaN).
template <class T>
void write_plain(const KVShape& s, char* sub, int64_t offset, const float* head, bool is_value) {
  const int64_t S = sub_block(s), Dp = s.padded_head_dim;
  T* at = (T*)sub + (is_value ? S * Dp + offset * Dp : offset);
  const int64_t stride = is_value ? 1 : S;
  T tmp[16];
  for (int64_t e = 0; e < Dp; e += 16) {
    store(tmp, load(head + e));
    for (int64_t i = 0; i < 16; i++) at[(e + i) * stride] = tmp[i];
  }
}

inline void write_pairs(const KVShape& s, char* sub, int64_t offset, const float* head, bool is_value,
                        bool is_last_written) {
  const int64_t S = sub_block(s), Dp = s.padded_head_dim;
  alignas(64) bf16 tmp[16];
  for (int64_t e = 0; e < Dp; e += 16) {
    store(tmp, load(head + e));
    if (is_value) {
      bf16* at = (bf16*)sub + S * Dp + (offset / 2 * Dp + e) * 2 + offset % 2;
      const bool clear = offset % 2 == 0 && is_last_written;
      for (int64_t i = 0; i < 16; i++) {
        at[2 * i] = tmp[i];
        if (clear) at[2 * i + 1] = bf16{0};
      }
    } else {
      uint32_t* at = (uint32_t*)sub + e / 2 * S + offset;
      for (int64_t i = 0; i < 8; i++) memcpy(at + i * S, tmp + 2 * i, 4);
    }
  }
}

ALBIREO_INLINE void write_kv(const Args& a, const Step& step, int64_t t, int64_t kv_head, const float* head,
                             bool is_value) {
  const KVShape& s = a.kv_shape;
  const int64_t slot = step.slots[t], block = slot / s.block_size, offset = slot % s.block_size, S = sub_block(s);
  char* sub = a.kv + block * block_bytes(s) + kv_head * block_head_bytes(s) + offset / S * sub_block_bytes(s);
  const bool is_last_written = t + 1 >= step.T || step.slots[t + 1] != slot + 1;
  if (s.dtype == DType::kBF16) write_pairs(s, sub, offset % S, head, is_value, is_last_written);
  else if (s.dtype == DType::kF32) write_plain<float>(s, sub, offset % S, head, is_value);
  else write_plain<f16>(s, sub, offset % S, head, is_value);
}

ALBIREO_INLINE void finish_head(const Args& a, const Step& step, int64_t t, int64_t h, float* head, float* padded) {
  const int64_t D = a.kv_shape.head_dim, Dp = a.kv_shape.padded_head_dim, K = a.kv_shape.num_kv_heads;
  const bool is_query = h < a.num_heads, is_value = h >= a.num_heads + K;
  if (a.bias)
    for (int64_t e = 0; e < D; e++) head[e] += a.bias[h * D + e];
  const float* norm = is_query ? a.q_norm : a.k_norm;
  if (!is_value) {
    if (norm) normalize_head(head, D, norm, a.eps);
    rotate_head(head, D, a.rope + step.positions[t] * D);
  }
  if (is_query) {
    const int64_t at = t * out_stride(a, a.num_heads * D) + h * D;
    for (int64_t e = 0; e < D; e += 16) {
      const int64_t n = D - e;
      store_as(a.out_dtype, a.out, at + e, n >= 16 ? load(head + e) : load_n(head + e, n), n);
    }
    return;
  }
  if (D != Dp) {
    for (int64_t e = 0; e < Dp; e++) padded[e] = e < D ? head[e] : 0.0f;
    head = padded;
  }
  write_kv(a, step, t, is_value ? h - a.num_heads - K : h - a.num_heads, head, is_value);
}

template <class W>
void run_qkv(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t D = a.kv_shape.head_dim, heads = a.num_heads + 2 * a.kv_shape.num_kv_heads;
  const int64_t groups = qkv_groups(a), width = group_panels(D), columns = width * kPanel, panels = qkv_panels(a);
  const int64_t steps = ceil_div(a.k, W::kStep), elements = panel_elements<W>(a.k);
  float* c = (float*)scratch.base;
  float* padded = c + kRowChunk * columns;
  Activations<W> x{
      a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (typename W::A*)(padded + a.kv_shape.padded_head_dim)};
  for (int64_t item = begin; item < end; item++) {
    const int64_t group = item % groups, slab = item / groups, m_end = slab_end(slab, a.tuning.slab_rows, step.T);
    const int64_t first_panel = group * width;
    const int64_t first_head = group * columns / D;
    const int64_t last_head = first_head + columns / D < heads ? first_head + columns / D : heads;
    for (int64_t m = slab_begin(slab, a.tuning.slab_rows); m < m_end; m += kRowChunk) {
      const int64_t rows = m_end - m < kRowChunk ? m_end - m : kRowChunk;
      for (int64_t p = 0; p < width && first_panel + p < panels; p++) {
        const typename W::B* b = (const typename W::B*)a.weight + (first_panel + p) * elements;
        panel_product<W>(x, m, rows, b, steps, c + p * kPanel, columns, a.tuning);
      }
      for (int64_t i = 0; i < rows; i++)
        for (int64_t h = first_head; h < last_head; h++)
          finish_head(a, step, m + i, h, c + i * columns + (h - first_head) * D, padded);
    }
  }
}

ALBIREO_INLINE void dispatch_qkv_rope_kv(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.w_dtype == DType::kF32) run_qkv<WeightF32>(a, s, begin, end, scratch);
  else if (a.w_dtype == DType::kF16) run_qkv<WeightF16>(a, s, begin, end, scratch);
  else run_qkv<PairPolicy>(a, s, begin, end, scratch);
}

}  // namespace
