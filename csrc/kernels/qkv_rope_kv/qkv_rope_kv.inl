// Body of qkv_rope_kv for one ISA level.
#include "kernels/qkv_rope_kv/qkv_rope_kv.h"
#include "kernels/adapter/low.inl"
#include "kernels/gemm/held_panels.inl"
#include "kernels/kv_write/codes.inl"
#include "simd/rms.inl"

#include <cstring>

namespace {

ALBIREO_INLINE void normalize_head(float* head, int64_t d, const float* weight, float eps) {
  const V factor = set1(rms_factor(head, d, eps));
  for (int64_t e = 0; e < d; e += 16) {
    const int64_t n = d - e;
    const V v = mul(n >= 16 ? load(head + e) : load_n(head + e, n), factor);
    store_as(DType::kF32, head, e, weight ? mul(v, load(weight + e)) : v, n);
  }
}

ALBIREO_INLINE void add_bias(float* head, int64_t d, const float* bias) {
  for (int64_t e = 0; e < d; e += 16) {
    const int64_t n = d - e;
    if (n >= 16) store(head + e, add(load(head + e), load(bias + e)));
    else store_n(head + e, add(load_n(head + e, n), load_n(bias + e, n)), n);
  }
}

// put(e, v, n): takes n rotated channels from e on.
template <class Put>
ALBIREO_INLINE void rotate_head(const float* head, int64_t d, const float* table, Put put) {
  const int64_t half = d / 2;
  const float *cos = table, *sin = table + half;
  for (int64_t e = 0; e < half; e += 16) {
    const int64_t n = half - e;
    V a, b, c, s;
    if (n >= 16) a = load(head + e), b = load(head + half + e), c = load(cos + e), s = load(sin + e);
    else a = load_n(head + e, n), b = load_n(head + half + e, n), c = load_n(cos + e, n), s = load_n(sin + e, n);
    put(e, sub(mul(a, c), mul(b, s)), n);
    put(half + e, add(mul(b, c), mul(a, s)), n);
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

ALBIREO_INLINE char* sub_block_of(const Args& a, int64_t slot, int64_t kv_head) {
  const KVShape& s = a.kv_shape;
  const int64_t block = slot / s.block_size, offset = slot % s.block_size / s.every;
  return a.kv + block * block_stride(s) + kv_head * block_head_bytes(s) + offset / sub_block(s) * sub_block_bytes(s);
}

ALBIREO_INLINE void write_kv(const Args& a, const Step& step, int64_t t, int64_t kv_head, const float* head,
                             bool is_value) {
  const KVShape& s = a.kv_shape;
  const int64_t slot = step.slots[t], offset = slot % s.block_size / s.every % sub_block(s);
  char* sub = sub_block_of(a, slot, kv_head);
  const bool is_last_written = t + 1 >= step.T || step.slots[t + 1] != slot + 1;
  if (is_code(s.dtype)) write_codes(s, sub, offset, head, is_value);
  else if (s.dtype == DType::kBF16) write_pairs(s, sub, offset, head, is_value, is_last_written);
  else if (s.dtype == DType::kF32) write_plain<float>(s, sub, offset, head, is_value);
  else write_plain<f16>(s, sub, offset, head, is_value);
}

#ifdef ALBIREO_HAVE_TRANSPOSE
// A run of tokens into one sub-block, at neighbouring offsets; Dp is a multiple of 32 and head ld floats from token to
// token. The same bits as one by one. Returns how many it wrote: a V whose pair is elsewhere is left.
inline int64_t write_run(const KVShape& s, char* sub, int64_t offset, int64_t count, const float* head, int64_t ld,
                         bool is_value) {
  const int64_t S = sub_block(s), Dp = s.padded_head_dim;
  if (is_value) {
    if (offset % 2) return 0;
    bf16* at = (bf16*)sub + S * Dp + offset * Dp;
    for (int64_t i = 0; i + 2 <= count; i += 2, at += 2 * Dp)
      for (int64_t e = 0; e < Dp; e += 16)
        store_pairs(at + 2 * e, load(head + i * ld + e), load(head + (i + 1) * ld + e));
    return count / 2 * 2;
  }
  for (int64_t e = 0; e < Dp; e += 32) {
    __m512i words[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      const bool is_here = i >= offset && i < offset + count;
      const float* from = head + (is_here ? i - offset : 0) * ld + e;
      words[i] = pack_pairs(load(from), load(from + 16));
    }
    transpose_words(words);
    uint32_t* at = (uint32_t*)sub + e / 2 * S;
    const uint32_t mask = ((1u << count) - 1) << offset;
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) store_words(at + i * S, words[i], mask);
  }
  return count;
}
#endif

// Rows m .. m + rows of one head into the cache: whole runs where they lie side by side, else one by one.
ALBIREO_INLINE void write_rows(const Args& a, const Step& step, int64_t m, int64_t rows, int64_t kv_head,
                               const float* head, int64_t ld, bool is_value, float* padded) {
  const int64_t D = a.kv_shape.head_dim, Dp = a.kv_shape.padded_head_dim;
  for (int64_t i = 0; i < rows;) {
#ifdef ALBIREO_HAVE_TRANSPOSE
    const int64_t S = sub_block(a.kv_shape), slot = step.slots[m + i];
    int64_t count = 1;
    while (i + count < rows && slot % S + count < S && step.slots[m + i + count] == slot + count) count++;
    if (count > 1 && a.kv_shape.dtype == DType::kBF16 && D % 32 == 0) {
      const int64_t done =
          write_run(a.kv_shape, sub_block_of(a, slot, kv_head), slot % S, count, head + i * ld, ld, is_value);
      i += done;
      if (done == count) continue;
    }
#endif
    const float* from = head + i * ld;
    if (D != Dp) {
      for (int64_t e = 0; e < Dp; e++) padded[e] = e < D ? from[e] : 0.0f;
      from = padded;
    }
    write_kv(a, step, m + i, kv_head, from, is_value);
    i++;
  }
}

// Rows m .. m + rows of head h, ld floats apart: bias (of a head), norm, rotation, and to where they belong.
ALBIREO_INLINE void finish_head(const Args& a, const Step& step, int64_t m, int64_t rows, int64_t h, const float* bias,
                                float* heads, int64_t ld, float* padded) {
  const int64_t D = a.kv_shape.head_dim, K = a.kv_shape.num_kv_heads;
  const bool is_query = h < a.num_heads, is_value = h >= a.num_heads + K;
  const float* norm = is_query ? a.q_norm : a.k_norm;
  const int64_t stride = out_stride(a, a.num_heads * D);
  for (int64_t i = 0; i < rows; i++) {
    float* head = heads + i * ld;
    if (bias) add_bias(head, D, bias);
    if (is_value) continue;
    if (norm) normalize_head(head, D, norm, a.eps);
    const float* table = rope_row(a, step, m + i, D);
    const int64_t at = (m + i) * stride + h * D;
    if (is_query)
      rotate_head(head, D, table, [&](int64_t e, V v, int64_t n) { store_as(a.out_dtype, a.out, at + e, v, n); });
    else rotate_head(head, D, table, [&](int64_t e, V v, int64_t n) { store_as(DType::kF32, head, e, v, n); });
  }
  if (!is_query)
    write_rows(a, step, m, rows, is_value ? h - a.num_heads - K : h - a.num_heads, heads, ld, is_value, padded);
}

// Items begin .. end, all of the groups from first_group on of a weight whose first column is that of head `head`, and
// which has `heads` of them.
ALBIREO_INLINE void run_qkv(const Args& a, const Step& step, int64_t begin, int64_t end, int64_t first_group,
                            int64_t head, int64_t heads, Scratch& scratch, MakePanels make) {
  const int64_t D = a.kv_shape.head_dim, groups = qkv_groups(a), width = group_panels(D), columns = width * kPanel;
  const int64_t panels = ceil_div(heads * D, kPanel);
  float* c = (float*)scratch.base;
  float* padded = c + kMostChunk * columns;
  HeldPanels weight(make, a, scratch, (char*)(padded + a.kv_shape.padded_head_dim));
  const Slabs slabs(step.T, a.tuning.slab_rows);
  for (int64_t item = begin; item < end; item++) {
    const int64_t group = item % groups - first_group, slab = item / groups;
    const int64_t m_end = slabs.end(slab);
    const int64_t first_panel = group * width;
    const int64_t first_head = group * columns / D;
    const int64_t last_head = first_head + columns / D < heads ? first_head + columns / D : heads;
    for (int64_t m = slabs.begin(slab); m < m_end; m += slabs.chunk) {
      const int64_t rows = m_end - m < slabs.chunk ? m_end - m : slabs.chunk;
      for (int64_t p = 0; p < width && first_panel + p < panels; p++) {
        if (a.adapters) fetch_low(a, step, m, rows, first_panel + p);
        weight->product(m, rows, first_panel + p, c + p * kPanel, columns);
        if (a.adapters) add_low(a, step, m, rows, first_panel + p, c + p * kPanel, columns);
      }
      for (int64_t h = first_head; h < last_head; h++)
        finish_head(a, step, m, rows, head + h, a.bias ? a.bias + h * D : nullptr, c + (h - first_head) * D, columns,
                    padded);
    }
  }
}

inline void dispatch_qkv_rope_kv(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch,
                                 MakePanels make) {
  const Args v = of_v(a);
  const int64_t groups = qkv_groups(a), before = head_groups(merged_heads(a), a.kv_shape.head_dim);
  for (int64_t item = begin, stop; item < end; item = stop) {
    const int64_t group = item % groups;
    const bool is_v = group >= before;
    // without a v_weight all of them are of one matrix
    stop = a.v_weight ? item + (is_v ? groups : before) - group : end;
    if (stop > end) stop = end;
    run_qkv(is_v ? v : a, s, item, stop, is_v ? before : 0, is_v ? merged_heads(a) : 0,
            is_v ? a.kv_shape.num_kv_heads : merged_heads(a), scratch, make);
  }
}

}  // namespace
