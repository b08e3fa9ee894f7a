#include "kernels/pack/pack_blocks.h"

#include <algorithm>
#include <vector>

#include "kernels/pack/block_words.inl"

namespace albireo {
namespace {

constexpr uint32_t kNibbles = 0x0f0f0f0f, kPairs = 0x03030303, kOnes = 0x01010101;

// Four rows of one type, which become columns 4 quad .. of a sub-panel.
struct Pass {
  BlockType type;
  FourRows rows;
  int64_t quad;
  U4 mask;      // all bits of the lanes that are written: the others are of another type, or no rows at all
  U4 odd = {};  // those whose scale was not finite
};

// What a pass writes: its columns of lines of 16.
struct Columns {
  Pass& pass;

  void words(uint8_t* line, U4 x) const { put(line + 16 * pass.quad, x, pass.mask); }
  // Byte j of every word goes to line j.
  void bytes(uint8_t* lines, int64_t step, U4 x) const {
    const U4 by_line = transpose_bytes(x), mask = transpose_bytes(pass.mask);
    for (int j = 0; j < 4; j++) put<uint32_t>(lines + j * step + 4 * pass.quad, by_line[j], mask[j]);
  }
  // The lowest byte of every word.
  void byte(uint8_t* line, U4 x) const {
    put<uint32_t>(line + 4 * pass.quad, transpose_bytes(x)[0], transpose_bytes(pass.mask)[0]);
  }
  // The low half of every word: float16.
  void halves(uint8_t* line, U4 x) const {
    check(x);
    put(line + 8 * pass.quad, low_halves(x), low_halves(pass.mask));
  }
  U4 as_float(U4 x) const {
    check(x);
    return (U4)widen_f16(x & 0xffff);
  }
  void check(U4 half) const { pass.odd |= (U4)((half & 0x7c00) == 0x7c00); }
};

// The eight words of a unit, as codes lie in the file: 4 q .. 4 q + 3 in word q, each in kBits of a byte above `shift`.
// Of codes in nibbles two words become one.
void put_nibbles(const Columns& to, uint8_t* words, const U4* x, int shift) {
  for (int j = 0; j < 4; j++)
    to.words(words + j * kWord, (x[2 * j] >> shift & kNibbles) | (x[2 * j + 1] >> shift & kNibbles) << 4);
}
void put_pairs(const Columns& to, uint8_t* words, const U4* x, int shift) {
  for (int j = 0; j < 2; j++) {
    U4 word = {};
    for (int i = 0; i < 4; i++) word |= (x[4 * j + i] >> shift & kPairs) << 2 * i;
    to.words(words + j * kWord, word);
  }
}
void put_ones(const Columns& to, uint8_t* word, const U4* x, int shift) {
  U4 plane = {};
  for (int q = 0; q < 8; q++) plane |= (x[q] >> shift & kOnes) << q;
  to.words(word, plane);
}

// Where nest n of a sub-panel lies, its steps and its units.
struct NestPlace {
  const Encoding& e;
  uint8_t* sub;
  int64_t n;

  uint8_t* head() const { return sub + nest_place(e, n); }
  uint8_t* step(int64_t g) const { return sub + steps_place(e, n * (kNest / e.group) + g); }
  uint8_t* unit(int64_t u) const { return sub + unit_place(e, n * (kNest / kUnit) + u); }
};

// Scales of four groups from `group`; of affine nests what their offset is multiplied with.
void put_steps(const Columns& to, const NestPlace& at, int64_t group, U4 scales) {
  to.bytes(at.step(group), step_bytes(at.e), scales);
}
void put_steps(const Columns& to, const NestPlace& at, int64_t group, U4 scales, U4 offsets) {
  put_steps(to, at, group, scales);
  to.bytes(at.step(group) + kSubPanel, step_bytes(at.e), offsets);
}
// What is to be taken off lies there.
void put_affine_head(const Columns& to, const NestPlace& at, U4 both) {
  to.halves(at.head(), both);
  to.halves(at.head() + 2 * kSubPanel, both >> 16 ^ 0x8000);
}

void q2_k(const FourRows& b, const Columns& to, const NestPlace& at) {
  put_affine_head(to, at, word_of(b, 80));
  U4 scales[4];
  load_words<4>(b, 0, scales);
  for (int i = 0; i < 4; i++) put_steps(to, at, 4 * i, scales[i] & kNibbles, scales[i] >> 4 & kNibbles);
  for (int half = 0; half < 2; half++) {
    U4 x[8];
    load_words<8>(b, 16 + 32 * half, x);
    for (int q = 0; q < 4; q++) put_pairs(to, at.unit(4 * half + q), x, 2 * q);
  }
}

void q3_k(const FourRows& b, const Columns& to, const NestPlace& at) {
  to.halves(at.head(), half_of(b, 108));
  // low halves of 16 scales, then their two highest bits, four by four; -32 is byte 96
  const U4 first = word_of(b, 96), second = word_of(b, 100), highs = word_of(b, 104);
  for (int i = 0; i < 4; i++) {
    const U4 low = (i % 2 ? second : first) >> i / 2 * 4 & kNibbles, high = (highs >> 2 * i & kPairs) << 4;
    put_steps(to, at, 4 * i, (low | high) + 96 * kOnes);
  }
  U4 thirds[8];
  load_words<8>(b, 0, thirds);
  for (int half = 0; half < 2; half++) {
    U4 x[8];
    load_words<8>(b, 32 + 32 * half, x);
    for (int q = 0; q < 4; q++) {
      put_pairs(to, at.unit(4 * half + q), x, 2 * q);
      put_ones(to, at.unit(4 * half + q) + 2 * kWord, thirds, 4 * half + q);
    }
  }
}

// The head of Q4_K and Q5_K: two float16, then scales and minima of eight groups, 6 bits each. Those of the first four
// lie in a word each; of the last four the low halves share a word, the two highest bits lie above the first four's.
void put_k_head(const FourRows& b, const Columns& to, const NestPlace& at) {
  U4 x[4];
  load_words<4>(b, 0, x);
  put_affine_head(to, at, x[0]);
  put_steps(to, at, 0, x[1] & 0x3f3f3f3f, x[2] & 0x3f3f3f3f);
  put_steps(to, at, 4, (x[3] & kNibbles) | (x[1] >> 2 & 0x30303030), (x[3] >> 4 & kNibbles) | (x[2] >> 2 & 0x30303030));
}

void q4_k(const FourRows& b, const Columns& to, const NestPlace& at) {
  put_k_head(b, to, at);
  for (int two = 0; two < 4; two++) {
    U4 x[8];
    load_words<8>(b, 16 + 32 * two, x);
    put_nibbles(to, at.unit(2 * two), x, 0);
    put_nibbles(to, at.unit(2 * two + 1), x, 4);
  }
}

void q5_k(const FourRows& b, const Columns& to, const NestPlace& at) {
  put_k_head(b, to, at);
  U4 fifths[8];
  load_words<8>(b, 16, fifths);
  for (int two = 0; two < 4; two++) {
    U4 x[8];
    load_words<8>(b, 48 + 32 * two, x);
    for (int i = 0; i < 2; i++) {
      put_nibbles(to, at.unit(2 * two + i), x, 4 * i);
      put_ones(to, at.unit(2 * two + i) + 4 * kWord, fifths, 2 * two + i);
    }
  }
}

void q6_k(const FourRows& b, const Columns& to, const NestPlace& at) {
  to.halves(at.head(), half_of(b, 208));
  U4 scales[4];
  load_words<4>(b, 192, scales);
  for (int i = 0; i < 4; i++) put_steps(to, at, 4 * i, scales[i] ^ 0x80808080);
  for (int half = 0; half < 2; half++) {
    U4 low[16], high[8];
    load_words<16>(b, 64 * half, low);
    load_words<8>(b, 128 + 32 * half, high);
    for (int q = 0; q < 4; q++) {
      uint8_t* unit = at.unit(4 * half + q);
      put_nibbles(to, unit, low + q % 2 * 8, q / 2 * 4);
      put_pairs(to, unit + 4 * kWord, high, 2 * q);
    }
  }
}

// Where a byte holds a number of the first 16 in its low half, one of the last 16 in its high half.
void put_nibble_words(const Columns& to, uint8_t* words, const U4* x) {
  for (int j = 0; j < 4; j++) {
    const U4 low = x[j % 2 * 2] >> j / 2 * 4 & kNibbles, high = x[j % 2 * 2 + 1] >> j / 2 * 4 & kNibbles;
    to.words(words + j * kWord, low | high << 4);
  }
}

// Eight scales of 6 bits: the two highest of each in a word, then the low halves; -32 is byte 96.
void iq4_xs(const FourRows& b, const Columns& to, const NestPlace& at) {
  to.halves(at.head(), half_of(b, 0));
  const U4 highs = half_of(b, 2), lows = word_of(b, 4);
  for (int first = 0; first < 8; first += 4) {
    U4 four = {};
    for (int i = 0; i < 4; i++) four |= ((lows >> 4 * (first + i) & 15) | (highs >> 2 * (first + i) & 3) << 4) << 8 * i;
    put_steps(to, at, first, four + 96 * kOnes);
  }
  for (int u = 0; u < 8; u++) {
    U4 x[4];
    load_words<4>(b, 8 + 16 * u, x);
    put_nibble_words(to, at.unit(u), x);
  }
}

// A head of kInt8Group or kInt4Group, see albireo/encoded.h; of affine ones both halves are float16.
void put_head(const Columns& to, uint8_t* head, U4 scale, uint32_t zero) {
  to.words(head, (to.as_float(scale) & ~0xffu) | zero);
}
void put_affine_head(const Columns& to, uint8_t* head, U4 both) {
  to.words(head, to.as_float(both));
  to.words(head + kWord, to.as_float(both >> 16));
}

// The same with a fifth bit of each number, to words of bytes.
void put_fifths(const Columns& to, uint8_t* words, const U4* x, U4 fifths) {
  for (int j = 0; j < 8; j++) {
    const U4 four = fifths >> 4 * j & 15, spread = (four | four << 7 | four << 14 | four << 21) & kOnes;
    to.words(words + j * kWord, (x[j % 4] >> j / 4 * 4 & kNibbles) | spread << 4);
  }
}

// Block of group g.
void small(BlockType type, const FourRows& b, const Columns& to, const Encoding& e, uint8_t* sub, int64_t k,
           int64_t g) {
  uint8_t *head = sub + g * group_bytes(e), *words = sub + words_at(e, k, g);
  U4 x[8];
  switch (type) {
    case BlockType::kQ4_0:
      put_head(to, head, half_of(b, 0), 8);
      load_words<4>(b, 2, x);
      return put_nibble_words(to, words, x);
    case BlockType::kQ4_1:
      put_affine_head(to, head, word_of(b, 0));
      load_words<4>(b, 4, x);
      return put_nibble_words(to, words, x);
    case BlockType::kQ5_0:
      put_head(to, head, half_of(b, 0), 16);
      load_words<4>(b, 6, x);
      return put_fifths(to, words, x, word_of(b, 2));
    case BlockType::kQ5_1:
      put_affine_head(to, head, word_of(b, 0));
      load_words<4>(b, 8, x);
      return put_fifths(to, words, x, word_of(b, 4));
    case BlockType::kQ8_0:
      put_head(to, head, half_of(b, 0), 128);
      load_words<8>(b, 2, x);
      for (int j = 0; j < 8; j++) to.words(words + j * kWord, x[j] ^ 0x80808080);
      return;
    default: {  // MXFP4
      const U4 exponents = byte_of(b, 0);
      to.pass.odd |= (U4)(exponents == 255);
      to.byte(sub + g * gamma_step(e), exponents);
      load_words<4>(b, 1, x);
      return put_nibble_words(to, words, x);
    }
  }
}

// Fields: size: numbers of a block.
struct Form {
  BlockType type;
  int64_t size, bytes;
  Encoding to;
};
constexpr Form kForms[] = {{BlockType::kQ4_0, 32, 18, {DType::kInt4Group, 32, false}},
                           {BlockType::kQ4_1, 32, 20, {DType::kInt4Group, 32, true}},
                           {BlockType::kQ5_0, 32, 22, {DType::kInt8Group, 32, false}},
                           {BlockType::kQ5_1, 32, 24, {DType::kInt8Group, 32, true}},
                           {BlockType::kQ8_0, 32, 34, {DType::kInt8Group, 32, false}},
                           {BlockType::kQ2K, 256, 84, {DType::kQ2K, 16, true}},
                           {BlockType::kQ3K, 256, 110, {DType::kQ3K, 16, false}},
                           {BlockType::kQ4K, 256, 144, {DType::kQ4K, 32, true}},
                           {BlockType::kQ5K, 256, 176, {DType::kQ5K, 32, true}},
                           {BlockType::kQ6K, 256, 210, {DType::kQ6K, 16, false}},
                           {BlockType::kIQ4XS, 256, 136, {DType::kIQ4XS, 32, false}},
                           {BlockType::kMxfp4, 32, 17, {DType::kFp4, 32, false}}};

const Form* form_of(BlockType type) {
  const auto* found = std::find_if(std::begin(kForms), std::end(kForms), [&](const Form& f) { return f.type == type; });
  return found == std::end(kForms) ? nullptr : found;
}

// What four rows have from k number `from` on, up to a nest.
void take(Pass& pass, const Encoding& e, uint8_t* sub, int64_t k, int64_t from) {
  const Form& form = *form_of(pass.type);
  const Columns to{pass};
  for (int64_t i = from; i < std::min(k, from + kNest); i += form.size) {
    FourRows b;
    for (int lane = 0; lane < 4; lane++) b[lane] = pass.rows[lane] + i / form.size * form.bytes;
    const NestPlace at{e, sub, i / kNest};
    switch (pass.type) {
      case BlockType::kQ2K: q2_k(b, to, at); break;
      case BlockType::kQ3K: q3_k(b, to, at); break;
      case BlockType::kQ4K: q4_k(b, to, at); break;
      case BlockType::kQ5K: q5_k(b, to, at); break;
      case BlockType::kQ6K: q6_k(b, to, at); break;
      case BlockType::kIQ4XS: iq4_xs(b, to, at); break;
      default: small(pass.type, b, to, e, sub, k, i / form.size);
    }
  }
}

// Of the 16 rows of a sub-panel, four by four and type by type.
void find_passes(const uint8_t* const* rows, const BlockType* types, std::vector<Pass>& passes) {
  passes.clear();
  for (int64_t first = 0; first < kSubPanel; first += 4)
    for (int64_t i = first; i < first + 4; i++) {
      const auto is_same = [&](int64_t j) { return rows[j] && types[j] == types[i]; };
      bool is_taken = !rows[i];
      for (int64_t j = first; j < i; j++) is_taken |= is_same(j);
      if (is_taken) continue;
      Pass pass{types[i], {}, first / 4, {}};
      for (int64_t j = first; j < first + 4; j++) {
        pass.rows[j - first] = is_same(j) ? rows[j] : rows[i];
        pass.mask[j - first] = is_same(j) ? ~0u : 0;
      }
      passes.push_back(pass);
    }
}

}  // namespace

bool is_packed_from(const Encoding& e, BlockType type, int64_t k) {
  const Form* form = form_of(type);
  return form && k % form->size == 0 && form->to.dtype == e.dtype && form->to.group == e.group &&
         form->to.affine == e.affine;
}

int64_t pack_blocks(const uint8_t* const* rows, const BlockType* types, int64_t k, const Encoding& e, char* out,
                    int64_t begin, int64_t end) {
  int64_t odd = -1;
  const int64_t bytes = encoded_panel_bytes(e, k), sub_bytes = sub_panel_bytes(e, k);
  std::vector<Pass> passes;
  for (int64_t p = begin; p < end; p++) {
    uint8_t* panel = (uint8_t*)out + p * bytes;
    memset(panel, 0, bytes);
    for (int64_t s = 0; s < kSubPanels; s++) {
      const int64_t first = p * kPanel + s * kSubPanel;
      find_passes(rows + first, types + first, passes);
      for (int64_t from = 0; from < k; from += kNest)
        for (Pass& pass : passes) take(pass, e, panel + s * sub_bytes, k, from);
      for (const Pass& pass : passes)
        for (int lane = 0; lane < 4; lane++)
          if (pass.odd[lane] & pass.mask[lane]) {
            const int64_t row = first + 4 * pass.quad + lane;
            odd = odd < 0 ? row : std::min(odd, row);
          }
    }
    if (e.dtype != DType::kFp4) continue;
    float* tail = (float*)(panel + kSubPanels * sub_bytes);
    for (int64_t c = 0; c < kPanel; c++) tail[c] = rows[p * kPanel + c] ? 0.5f : 0.0f;  // see kTwiceE2M1
  }
  return odd;
}

}  // namespace albireo
