#include "kernels/pack/pack_encoded.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd/vec_scalar.h"

namespace albireo {
namespace {

// Where the code of column c at k lies in a sub-panel, and by how many bits it is shifted there.
struct Place {
  int64_t at;
  int shift;
};
Place place_of(const Encoding& e, int64_t depth, int64_t c, int64_t k) {
  const int64_t in_word = 4 * c + k % 4;
  if (e.dtype == DType::kFp8) return {fp8_place(c, k), 0};
  if (e.dtype == DType::kInt8) return {k / 4 * kWord + in_word, 0};
  const int64_t g = k / e.group, in = k % e.group;
  if (e.dtype == DType::kInt8Group) return {g * group_bytes(e) + head_bytes(e) + in / 4 * kWord + in_word, 0};
  const int64_t words = e.dtype == DType::kInt4Group ? g * group_bytes(e) + head_bytes(e)
                                                     : gamma_bytes(e, depth) + g * group_words(e) * kWord;
  return {words + in / 8 * kWord + in_word, (int)(in / 4 % 2 * 4)};
}

void put_heads(const EncodedRow& row, int64_t k, const Encoding& e, int64_t c, uint8_t* sub) {
  if (e.dtype == DType::kInt8 || e.dtype == DType::kFp8) return;
  for (int64_t g = 0; g < num_groups(e, k); g++) {
    if (e.dtype == DType::kFp4) {
      sub[g * gamma_step(e) + c] = row.gamma[g];
      continue;
    }
    if (e.dtype == DType::kInt4Progressive) {
      sub[g * 32 + c] = row.gamma[g], sub[g * 32 + 16 + c] = row.zero[g];
      continue;
    }
    uint8_t* head = sub + g * group_bytes(e);
    const uint32_t bits = bits_of(row.scale[g]);
    const uint32_t word = e.affine ? bits : (bits & ~0xffu) | row.zero[g];
    memcpy(head + 4 * c, &word, 4);
    if (e.affine) memcpy(head + kWord + 4 * c, row.offset + g, 4);
  }
}

void put_row(const EncodedRow& row, int64_t k, const Encoding& e, int64_t column, uint8_t* panel) {
  const int64_t c = column % kSubPanel;
  uint8_t* sub = panel + column / kSubPanel * sub_panel_bytes(e, k);
  if (!row.codes) return;
  put_heads(row, k, e, c, sub);
  for (int64_t i = 0; i < k; i++) {
    const Place p = place_of(e, k, c, i);
    sub[p.at] |= (uint8_t)(row.codes[i] << p.shift);
  }
  float* tail = (float*)(panel + kSubPanels * sub_panel_bytes(e, k));
  const int64_t scales = tail_bytes(e, k) / (kPanel * 4);
  const float by = e.dtype == DType::kFp4 ? 0.5f : 1.0f;
  for (int64_t g = 0; g < scales; g++) tail[g * kPanel + column] = row.scale[g] * by;
}

float storable(float scale) {  // 16 significant bits, ties to even
  const uint32_t bits = bits_of(scale);
  return float_of((bits + 0x7f + (bits >> 8 & 1)) & ~0xffu);
}
float nearest(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }  // |x| < 2^22

uint8_t e4m3_code(float x) {
  const float size = std::fabs(x);
  int code = (int)nearest(size * 512.0f);  // below 2^-6: steps of 2^-9
  if (size >= 0x1p-6f) {
    const uint32_t u = bits_of(size);
    code = std::min<int>(126, (int)((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120 << 3));
  }
  return (uint8_t)(code | (std::signbit(x) ? 128 : 0));
}
uint8_t e2m1_code(float x) {
  const float size = std::min(std::fabs(x), 6.0f);
  const float code = size < 2.0f   ? nearest(size * 2.0f)
                     : size < 4.0f ? nearest(size) + 2.0f
                                   : nearest(size * 0.5f) + 4.0f;
  return (uint8_t)((int)code | (std::signbit(x) ? 8 : 0));
}

// One row of numbers, rounded.
struct Rounded {
  std::vector<float> numbers, scale;
  std::vector<uint8_t> codes, zero, gamma;

  EncodedRow row() const { return {codes.data(), scale.data(), zero.data(), gamma.data(), nullptr}; }

  template <class From>
  void take(const void* from, int64_t k, const Encoding& e) {
    numbers.resize(k), codes.resize(k);
    scale.resize(num_groups(e, k)), zero.resize(num_groups(e, k));
    for (int64_t i = 0; i < k; i++) {
      From x;
      memcpy(&x, (const From*)from + i, sizeof(x));
      numbers[i] = widen(x);
    }
    if (e.dtype == DType::kFp4) return e2m1(k, e);
    for (int64_t g = 0; g < num_groups(e, k); g++) {
      const int64_t begin = g * group_of(e, k), end = std::min(k, begin + group_of(e, k));
      if (e.dtype == DType::kFp8) e4m3(begin, end, g);
      else if (e.dtype == DType::kInt4Group) asymmetric(begin, end, g);
      else symmetric(begin, end, g, e.group != 0);
    }
  }

  void e4m3(int64_t begin, int64_t end, int64_t g) {
    float largest = 0.0f;
    for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::fabs(numbers[i]));
    const float s = largest / 448.0f, by = s > 0.0f ? s : INFINITY;
    for (int64_t i = begin; i < end; i++) codes[i] = e4m3_code(numbers[i] / by);
    scale[g] = s, zero[g] = 0;
  }

  void e2m1(int64_t k, const Encoding& e) {
    const int64_t groups = num_groups(e, k);
    std::vector<float> largest(groups, 0.0f);
    for (int64_t i = 0; i < k; i++) largest[i / e.group] = std::max(largest[i / e.group], std::fabs(numbers[i]));
    const float most = *std::max_element(largest.begin(), largest.end());
    gamma.assign(groups, 0), scale[0] = has_e4m3_scales(e) ? most / (6.0f * 448.0f) : 1.0f;
    for (int64_t g = 0; g < groups; g++) {
      float step = 0.0f;
      if (has_e4m3_scales(e)) {
        gamma[g] = e4m3_code(largest[g] / (scale[0] > 0.0f ? scale[0] : INFINITY) / 6.0f);
        step = 256.0f * widen(f16{(uint16_t)(gamma[g] << 7)}) * scale[0];
      } else if (largest[g] > 0.0f) {
        int exponent;
        std::frexp(largest[g], &exponent);
        gamma[g] = (uint8_t)std::min(254, std::max(0, exponent - 3 + 127));
        step = std::ldexp(1.0f, gamma[g] - 127);
      }
      const float by = step > 0.0f ? step : INFINITY;
      for (int64_t i = g * e.group; i < std::min(k, (g + 1) * e.group); i++) codes[i] = e2m1_code(numbers[i] / by);
    }
  }

  void symmetric(int64_t begin, int64_t end, int64_t g, bool is_group) {
    float largest = 0.0f;
    for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::fabs(numbers[i]));
    const float s = is_group ? storable(largest / 127.0f) : largest / 127.0f;
    const float by = s > 0.0f ? s : INFINITY;
    for (int64_t i = begin; i < end; i++)
      codes[i] = (uint8_t)(int)(std::min(127.0f, std::max(-127.0f, nearest(numbers[i] / by))) + 128.0f);
    scale[g] = s, zero[g] = 128;
  }

  void asymmetric(int64_t begin, int64_t end, int64_t g) {
    float low = 0.0f, high = 0.0f;
    for (int64_t i = begin; i < end; i++) low = std::min(low, numbers[i]), high = std::max(high, numbers[i]);
    const float s = storable((high - low) / 15.0f), by = s > 0.0f ? s : INFINITY;
    const float z = std::min(15.0f, std::max(0.0f, nearest(-low / by)));
    for (int64_t i = begin; i < end; i++)
      codes[i] = (uint8_t)(int)std::min(15.0f, std::max(0.0f, nearest(numbers[i] / by) + z));
    scale[g] = s, zero[g] = (uint8_t)(int)z;
  }
};

}  // namespace

void pack_encoded(const EncodedRow* rows, int64_t k, const Encoding& e, char* out, int64_t begin, int64_t end) {
  const int64_t bytes = encoded_panel_bytes(e, k);
  for (int64_t p = begin; p < end; p++) {
    uint8_t* panel = (uint8_t*)out + p * bytes;
    memset(panel, 0, bytes);
    for (int64_t column = 0; column < kPanel; column++) put_row(rows[p * kPanel + column], k, e, column, panel);
  }
}

void pack_rounded(const void* const* rows, int64_t k, DType from, const Encoding& e, char* out, int64_t begin,
                  int64_t end) {
  const int64_t bytes = encoded_panel_bytes(e, k);
  Rounded rounded;
  for (int64_t p = begin; p < end; p++) {
    uint8_t* panel = (uint8_t*)out + p * bytes;
    memset(panel, 0, bytes);
    for (int64_t column = 0; column < kPanel; column++) {
      const void* row = rows[p * kPanel + column];
      if (!row) continue;
      if (from == DType::kF32) rounded.take<float>(row, k, e);
      else if (from == DType::kF16) rounded.take<f16>(row, k, e);
      else rounded.take<bf16>(row, k, e);
      put_row(rounded.row(), k, e, column, panel);
    }
  }
}

}  // namespace albireo
