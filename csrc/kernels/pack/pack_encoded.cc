#include "kernels/pack/pack_encoded.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd/vec_scalar.h"

namespace albireo {
namespace {

// Codes of four k, or of eight in nibbles, are one word of 32 bits; of float8 two halves of it, see fp8_place.
template <DType kType>
void put_word(uint64_t codes, int64_t c, uint8_t* word) {
  if constexpr (kType == DType::kFp8) {
    for (int half = 0; half < 2; half++) {
      const uint16_t two = (uint16_t)(codes >> 16 * half);
      memcpy(word + fp8_place(c, 2 * half), &two, 2);
    }
  } else {
    const uint32_t four = has_nibbles(kType) ? (uint32_t)codes | (uint32_t)(codes >> 32) << 4 : (uint32_t)codes;
    memcpy(word + 4 * c, &four, 4);
  }
}

template <DType kType>
void put_codes(const uint8_t* codes, int64_t k, const Encoding& e, int64_t c, uint8_t* sub) {
  constexpr int64_t kCodes = has_nibbles(kType) ? 8 : 4;
  const int64_t length = kType == DType::kInt8 || kType == DType::kFp8 ? k : e.group;
  for (int64_t g = 0; g * length < k; g++) {
    uint8_t* word = sub + words_at(e, k, g);
    const int64_t end = std::min(k, (g + 1) * length);
    int64_t i = g * length;
    for (; i + kCodes <= end; i += kCodes, word += kWord) {
      uint64_t some = 0;
      memcpy(&some, codes + i, kCodes);
      put_word<kType>(some, c, word);
    }
    if (i < end) {
      uint64_t some = 0;
      memcpy(&some, codes + i, end - i);
      put_word<kType>(some, c, word);
    }
  }
}

void put_codes(const uint8_t* codes, int64_t k, const Encoding& e, int64_t c, uint8_t* sub) {
  switch (e.dtype) {
    case DType::kInt8: return put_codes<DType::kInt8>(codes, k, e, c, sub);
    case DType::kInt8Group: return put_codes<DType::kInt8Group>(codes, k, e, c, sub);
    case DType::kInt4Group: return put_codes<DType::kInt4Group>(codes, k, e, c, sub);
    case DType::kInt4Progressive: return put_codes<DType::kInt4Progressive>(codes, k, e, c, sub);
    case DType::kFp4: return put_codes<DType::kFp4>(codes, k, e, c, sub);
    default: return put_codes<DType::kFp8>(codes, k, e, c, sub);
  }
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

void put_nested(const EncodedRow& row, int64_t k, const Encoding& e, int64_t c, uint8_t* sub) {
  for (int64_t n = 0; n * kNest < k; n++) {
    f16* nest = (f16*)(sub + nest_place(e, n));
    narrow(row.scale[n], nest + c);
    if (e.affine) narrow(row.offset[n], nest + kSubPanel + c);
  }
  for (int64_t g = 0; g < num_groups(e, k); g++) {
    uint8_t* step = sub + steps_place(e, g);
    step[c] = row.gamma[g];
    if (e.affine) step[kSubPanel + c] = row.zero[g];
  }
  const int bits = code_bits(e.dtype);
  for (int64_t u = 0; u * kUnit < k; u++) {
    uint32_t dots[8] = {}, planes[6] = {};
    memcpy(dots, row.codes + u * kUnit, std::min(kUnit, k - u * kUnit));
    for (int q = 0; q < 8; q++) {
      const uint32_t low = dots[q], high = bits < 4 ? low >> 2 : low >> 4;
      if (bits >= 4) planes[q / 2] |= (low & 0x0f0f0f0f) << q % 2 * 4;
      else planes[q / 4] |= (low & 0x03030303) << q % 4 * 2;
      if (bits == 6) planes[4 + q / 4] |= (high & 0x03030303) << q % 4 * 2;
      else if (bits % 2) planes[bits - 1] |= (high & 0x01010101) << q;
    }
    uint8_t* unit = sub + unit_place(e, u);
    for (int word = 0; word < bits; word++) memcpy(unit + word * kWord + 4 * c, &planes[word], 4);
  }
}

void put_row(const EncodedRow& row, int64_t k, const Encoding& e, int64_t column, uint8_t* panel) {
  const int64_t c = column % kSubPanel;
  uint8_t* sub = panel + column / kSubPanel * sub_panel_bytes(e, k);
  if (!row.codes) return;
  if (is_nested(e.dtype)) return put_nested(row, k, e, c, sub);
  put_heads(row, k, e, c, sub);
  put_codes(row.codes, k, e, c, sub);
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

// [4] e4m3, in lanes of 32 bits.
I4 e4m3_codes(F4 x) {
  const U4 bits = (U4)x, size = bits & 0x7fffffff;
  const I4 tiny = to_ints(round_of((F4)size * 512.0f));  // below 2^-6: steps of 2^-9
  const I4 rounded = (I4)((size + 0x7ffff + (size >> 20 & 1)) >> 20) - (120 << 3);
  return ((F4)size >= 0x1p-6f ? rounded < 126 ? rounded : isplat(126) : tiny) | (I4)(bits >> 24 & 128);
}
uint8_t e4m3_code(float x) { return (uint8_t)e4m3_codes(splat(x))[0]; }
// [4] e2m1, likewise.
I4 e2m1_codes(F4 x) {
  const F4 whole = (F4)((U4)x & 0x7fffffff), size = whole < 6.0f ? whole : splat(6.0f);
  const F4 code = size < 2.0f   ? round_of(size * 2.0f)
                  : size < 4.0f ? round_of(size) + 2.0f
                                : round_of(size * 0.5f) + 4.0f;
  return to_ints(code) | (I4)((U4)x >> 28 & 8);
}

// One row of numbers, rounded.
struct Rounded {
  std::vector<float> numbers, scale;
  std::vector<uint8_t> codes, zero, gamma;

  EncodedRow row() const { return {codes.data(), scale.data(), zero.data(), gamma.data(), nullptr}; }

  // Returns: whether all numbers were finite; codes of others mean nothing.
  template <class From>
  bool take(const void* from, int64_t k, const Encoding& e) {
    numbers.resize(round_up(k, 16)), codes.resize(round_up(k, 16));
    scale.resize(num_groups(e, k)), zero.resize(num_groups(e, k));
    V odd = set1(0.0f);
    for (int64_t i = 0; i < k; i += 16) {
      From some[16] = {};
      memcpy((void*)some, (const From*)from + i, std::min<int64_t>(16, k - i) * sizeof(From));
      const V x = load(some);
      store(numbers.data() + i, x);
      odd = add(odd, sub(x, x));  // 0 of a finite number, else NaN from there on
    }
    float lanes[16], sum = 0.0f;
    store(lanes, odd);
    for (const float lane : lanes) sum += lane;
    round(k, e);
    return sum == 0.0f;
  }

  void round(int64_t k, const Encoding& e) {
    if (e.dtype == DType::kFp4) return e2m1(k, e);
    for (int64_t g = 0; g < num_groups(e, k); g++) {
      const int64_t begin = g * group_of(e, k), end = std::min(k, begin + group_of(e, k));
      if (e.dtype == DType::kFp8) e4m3(begin, end, g);
      else if (e.dtype == DType::kInt4Group) asymmetric(begin, end, g);
      else symmetric(begin, end, g, e.group != 0);
    }
  }

  // Groups are whole vectors; behind k there are zeros, whose codes nobody reads.
  V vector(int64_t i) const { return load(numbers.data() + i); }
  void keep(int64_t i, const VI& ints) {  // of their low 8 bits
    const auto byte = [&](int q) { return ints.q[q] << 24 >> 24; };
    const B16 bytes = pack_ints(byte(0), byte(1), byte(2), byte(3));
    memcpy(codes.data() + i, &bytes, 16);
  }
  float largest_of(int64_t begin, int64_t end) const {  // as if numbers that are none were not there
    V most = set1(0.0f);
    for (int64_t i = begin; i < end; i += 16) most = max(vector(i), max(sub(set1(0.0f), vector(i)), most));
    return hmax(most);
  }

  void e4m3(int64_t begin, int64_t end, int64_t g) {
    const float s = largest_of(begin, end) / 448.0f;
    const F4 by = splat(s > 0.0f ? s : INFINITY);
    for (int64_t i = begin; i < end; i += 16)
      keep(i, quarters<VI>([&](int q) { return e4m3_codes(vector(i).q[q] / by); }));
    scale[g] = s, zero[g] = 0;
  }

  void e2m1(int64_t k, const Encoding& e) {
    const int64_t groups = num_groups(e, k);
    std::vector<float> largest(groups);
    for (int64_t g = 0; g < groups; g++) largest[g] = largest_of(g * e.group, std::min(k, (g + 1) * e.group));
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
      const F4 by = splat(step > 0.0f ? step : INFINITY);
      for (int64_t i = g * e.group; i < std::min(k, (g + 1) * e.group); i += 16)
        keep(i, quarters<VI>([&](int q) { return e2m1_codes(vector(i).q[q] / by); }));
    }
  }

  void symmetric(int64_t begin, int64_t end, int64_t g, bool is_group) {
    const float largest = largest_of(begin, end) / 127.0f, s = is_group ? storable(largest) : largest;
    const V by = set1(s > 0.0f ? s : INFINITY), most = set1(127.0f), least = set1(-127.0f);
    for (int64_t i = begin; i < end; i += 16) {
      const V nearest = min(max(round_even(div(vector(i), by)), least), most);
      keep(i, quarters<VI>([&](int q) { return to_ints(nearest.q[q]) + 128; }));
    }
    scale[g] = s, zero[g] = 128;
  }

  void asymmetric(int64_t begin, int64_t end, int64_t g) {
    V lowest = set1(0.0f), highest = set1(0.0f);
    for (int64_t i = begin; i < end; i += 16) lowest = min(vector(i), lowest), highest = max(vector(i), highest);
    const float low = -hmax(sub(set1(0.0f), lowest)), high = hmax(highest);
    const float s = storable((high - low) / 15.0f), divisor = s > 0.0f ? s : INFINITY;
    const float z = std::min(15.0f, std::max(0.0f, nearest(-low / divisor)));
    const V by = set1(divisor), most = set1(15.0f);
    for (int64_t i = begin; i < end; i += 16) {
      const V code = min(max(add(round_even(div(vector(i), by)), set1(z)), set1(0.0f)), most);
      keep(i, quarters<VI>([&](int q) { return to_ints(code.q[q]); }));
    }
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

int64_t pack_rounded(const void* const* rows, int64_t k, DType from, const Encoding& e, char* out, int64_t begin,
                     int64_t end) {
  int64_t odd = -1;
  const int64_t bytes = encoded_panel_bytes(e, k);
  Rounded rounded;
  for (int64_t p = begin; p < end; p++) {
    uint8_t* panel = (uint8_t*)out + p * bytes;
    memset(panel, 0, bytes);
    for (int64_t column = 0; column < kPanel; column++) {
      const void* row = rows[p * kPanel + column];
      if (!row) continue;
      const bool is_finite = from == DType::kF32   ? rounded.take<float>(row, k, e)
                             : from == DType::kF16 ? rounded.take<f16>(row, k, e)
                                                   : rounded.take<bf16>(row, k, e);
      if (!is_finite && odd < 0) odd = p * kPanel + column;
      put_row(rounded.row(), k, e, column, panel);
    }
  }
  return odd;
}

}  // namespace albireo
