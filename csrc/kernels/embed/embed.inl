// Body of embed for one ISA level.
#include "kernels/embed/embed.h"

#include <cstring>

#include "albireo/split.h"
#include "kernels/gemm/fp4.inl"
#include "kernels/gemm/fp8.inl"
#include "kernels/gemm/nested.inl"

namespace {

template <class T>
void gather_row(const Args& a, int64_t id, float* out) {
  const T* row = (const T*)a.weight + id * a.k;
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e;
    store_as(DType::kF32, out, e, n >= 16 ? load(row + e) : Activations<WeightF32>::load_narrow(row + e, n), n);
  }
}

// One column of a sub-panel: elements kStep at a time, a sub-panel's width apart.
template <class W>
void gather_column(const Args& a, int64_t id, float* out) {
  using B = typename W::B;
  const int64_t sub = panel_elements<W>(a.k) / kSubPanels, column = id % kSubPanel;
  const B* columns = (const B*)a.weight + id / kSubPanel * sub;  // sub-panels follow each other across panels
  alignas(64) B tmp[16];
  for (int64_t e = 0; e < a.k; e += 16) {
    const int64_t n = a.k - e < 16 ? a.k - e : 16;
    for (int64_t i = 0; i < n; i++) {
      const int64_t k = e + i;
      tmp[i] = columns[(k / W::kStep * kSubPanel + column) * W::kStep + k % W::kStep];
    }
    store_as(DType::kF32, out, e, Activations<WeightF32>::load_narrow(tmp, n), n);
  }
}

// One column of a sub-panel of a K type.
inline void gather_nested(const Encoding& e, int64_t k, const uint8_t* b, int64_t column, float* out) {
  for (int64_t g = 0; g * e.group < k; g++) {
    float scale[16], other[16];
    const NestedHead head = nested_head(e, b, g);
    store(scale, head.scale), store(other, head.other);
    const float zero = e.affine ? 0.0f : other[column], offset = e.affine ? other[column] : 0.0f;
    for (int64_t i = g * e.group; i < k && i < (g + 1) * e.group; i++) {
      const int32_t code = nested_code(e.dtype, b + unit_place(e, i / kUnit), column, i % kUnit);
      out[i] = ((float)code - zero) * scale[column] + offset;
    }
  }
}

// One column of a panel of weights in few bits.
inline void gather_encoded(const Args& a, int64_t id, float* out) {
  const Encoding e = weight_encoding(a);
  const uint8_t* panel = (const uint8_t*)a.weight + id / kPanel * encoded_panel_bytes(e, a.k);
  const int64_t sub = id % kPanel / kSubPanel, column = id % kSubPanel;
  const uint8_t* b = panel + sub * sub_panel_bytes(e, a.k);
  if (is_nested(e.dtype)) return gather_nested(e, a.k, b, column, out);
  const float scale = ((const float*)(panel + kSubPanels * sub_panel_bytes(e, a.k)))[id % kPanel];
  for (int64_t k = 0; k < a.k; k++) {
    if (e.dtype == DType::kFp8) {
      const uint8_t code = b[fp8_place(column, k)];
      const float of_group =
          ((const float*)(panel + kSubPanels * sub_panel_bytes(e, a.k)))[k / group_of(e, a.k) * kPanel + id % kPanel];
      const uint32_t word = (uint32_t)(kE4M3.bits[code & 127] | (code & 128) << 8) << 16;
      memcpy(out + k, &word, 4);
      out[k] *= of_group;
      continue;
    }
    if (e.dtype == DType::kInt8) {
      out[k] = (float)(b[k / 4 * kWord + 4 * column + k % 4] - 128) * scale;
      continue;
    }
    const int64_t g = k / e.group, in = k % e.group;
    const bool is_grouped = !has_gammas(e.dtype);
    const uint8_t* head = b + g * (is_grouped ? group_bytes(e) : gamma_step(e));
    const uint8_t* words = is_grouped ? head + head_bytes(e) : b + gamma_bytes(e, a.k) + g * group_words(e) * kWord;
    int code = 0;
    if (has_nibbles(e.dtype)) code = words[in / 8 * kWord + 4 * column + in % 4] >> (in / 4 % 2 * 4) & 15;
    else code = words[in / 4 * kWord + 4 * column + in % 4];
    if (e.dtype == DType::kFp4) {
      float of_group[16];
      store(of_group, scale_of_group(e, b, g));
      out[k] = (float)(kTwiceE2M1[code] - kE2M1Zero) * of_group[column] * scale;
      continue;
    }
    if (!is_grouped) {
      out[k] = (float)((code - head[16 + column]) * head[column]) * scale;
      continue;
    }
    uint32_t bits;
    memcpy(&bits, head + 4 * column, 4);
    float own, offset = 0.0f;
    const uint32_t kept = e.affine ? bits : bits & ~0xffu;
    memcpy(&own, &kept, 4);
    if (e.affine) memcpy(&offset, head + kWord + 4 * column, 4);
    else code -= (int)(bits & 0xff);
    out[k] = (float)code * own + offset;
  }
}

ALBIREO_INLINE void dispatch_embed(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch&) {
  for (int64_t t = begin; t < end; t++) {
    float* out = (float*)a.out + t * out_stride(a, a.k);
    const int32_t* ids = a.ids_of == IdsOf::kTypes       ? step.token_types
                         : a.ids_of == IdsOf::kPositions ? step.positions
                                                         : step.token_ids;
    const int64_t id = ids ? ids[t] : 0;
    if (a.ids_of == IdsOf::kTokens && step.given_rows && step.given_rows[t] >= 0)
      memcpy(out, step.given[0] + step.given_rows[t] * step.given_width[0], a.k * sizeof(float));
    else if (a.w_dtype >= DType::kInt8) gather_encoded(a, id, out);
    else if (a.w_dtype == DType::kF32) a.packed ? gather_column<WeightF32>(a, id, out) : gather_row<float>(a, id, out);
    else if (a.w_dtype == DType::kF16) a.packed ? gather_column<WeightF16>(a, id, out) : gather_row<f16>(a, id, out);
    else a.packed ? gather_column<PairPolicy>(a, id, out) : gather_row<bf16>(a, id, out);
    if (a.scale == 0) continue;
    for (int64_t e = 0; e < a.k; e += 16) {
      const int64_t n = a.k - e;
      store_as(DType::kF32, out, e, mul(n >= 16 ? load(out + e) : load_n(out + e, n), set1(a.scale)), n);
    }
  }
}

}  // namespace
