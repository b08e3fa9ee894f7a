// A level held to another one before it is used: linears of weights in few bits, whose sums are whole numbers.
#include <cstring>
#include <vector>

#include "albireo/amx.h"
#include "albireo/encoded.h"
#include "albireo/kernel.h"
#include "albireo/memory.h"
#include "albireo/tokens.h"
#include "kernels/linear/linear.h"
#include "kernels/pack/pack_encoded.h"

namespace albireo {
namespace {

struct Case {
  const char* name;
  Encoding encoding;
};
constexpr Case kCases[] = {
    {"int8", {DType::kInt8, 0, false}},
    {"int8.g32", {DType::kInt8Group, 32, false}},
    {"int8.g128.affine", {DType::kInt8Group, 128, true}},
    {"int4.g64", {DType::kInt4Group, 64, false}},
    {"int4p.g64", {DType::kInt4Progressive, 64, false}},
    {"fp4.g32", {DType::kFp4, 32, false}},
    {"fp4.g16", {DType::kFp4, 16, false}},
    {"q2_k", {DType::kQ2K, 16, true}},
    {"q3_k", {DType::kQ3K, 16, false}},
    {"q4_k", {DType::kQ4K, 32, true}},
    {"q5_k", {DType::kQ5K, 32, true}},
    {"q6_k", {DType::kQ6K, 16, false}},
    {"iq4_xs", {DType::kIQ4XS, 32, false}},
    {"iq2_s", {DType::kIQ2S, 16, false}},
};
struct Shape {
  int64_t rows, n, k;
};
// Whole tiles; a row and a column beyond; a rest of k, and rows of more than one chunk.
constexpr Shape kShapes[] = {{32, 64, 256}, {33, 65, 128}, {kMostChunk + 29, 100, 212}};

// One that reads codes: a level may have others only, which would take them for something else.
KernelFn linear_of(const std::string& level) {
  for (int64_t i = 0; i < kLinear.num_variants; i++) {
    const Variant& v = kLinear.variants[i];
    if (level == v.isa && (!strcmp(v.dtype, "integers") || !strcmp(v.dtype, "any"))) return v.run;
  }
  return nullptr;
}

struct Random {
  uint32_t state = 1;
  uint32_t next() {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
  }
  uint8_t below(uint32_t n) { return (uint8_t)(next() % n); }
  float scale() {  // half the bits of a float32, of both signs
    return (float)((int32_t)(next() % 511) - 255) * 0x1p-10f;
  }
};

void fill_tokens(Random& random, const Shape& s, Memory& x) {
  for (int64_t m = 0; m < s.rows; m++) {
    int8_t* codes = (int8_t*)x.data() + m * token_row_bytes(s.k);
    float* scale = (float*)(codes + token_codes(s.k));
    int32_t sum = 0;
    *scale = random.scale();
    for (int64_t k = 0; k < s.k; k++) {
      if (k % kSumStep == 0) scale[1 + k / kSumStep] = (float)sum;
      codes[k] = (int8_t)(random.below(255) - 127);
      sum += codes[k];
    }
    scale[num_sums(s.k)] = (float)sum;
  }
}

void fill_panels(Random& random, const Shape& s, const Encoding& e, Memory& weight) {
  const int64_t panels = ceil_div(s.n, kPanel), groups = num_groups(e, s.k);
  std::vector<uint8_t> codes(s.n * s.k), zero(s.n * groups), gamma(s.n * groups);
  std::vector<float> scale(s.n * groups), offset(s.n * groups);
  for (uint8_t& c : codes) c = random.below(has_table(e.dtype) ? 16 : largest_code(e.dtype) + 1);
  for (uint8_t& z : zero) z = e.dtype == DType::kInt8 ? 128 : random.below(16);
  for (uint8_t& g : gamma) g = (uint8_t)((e.dtype == DType::kFp4 ? 112 : 1) + random.below(8));
  for (float& f : scale) f = random.scale();
  for (float& f : offset) f = random.scale();
  std::vector<EncodedRow> rows(panels * kPanel);
  for (int64_t n = 0; n < s.n; n++)
    rows[n] = {codes.data() + n * s.k, scale.data() + n * groups,
               e.affine && !is_nested(e.dtype) ? nullptr : zero.data() + n * groups,
               has_gammas(e.dtype) || is_nested(e.dtype) ? gamma.data() + n * groups : nullptr,
               e.affine ? offset.data() + n * groups : nullptr};
  pack_encoded(rows.data(), s.k, e, weight.data(), 0, panels);
}

std::string difference(KernelFn tested, KernelFn trusted, const Case& c, const Shape& s) {
  Random random;
  const Encoding& e = c.encoding;
  Memory x(s.rows * token_row_bytes(s.k)), weight(ceil_div(s.n, kPanel) * encoded_panel_bytes(e, s.k) + 4096);
  fill_tokens(random, s, x);
  fill_panels(random, s, e, weight);
  Args a;
  a.x = x.data(), a.x_dtype = DType::kInt8Token, a.x_stride = token_row_bytes(s.k);
  a.weight = weight.data(), a.w_dtype = e.dtype, a.group = e.group, a.affine = e.affine;
  a.n = s.n, a.k = s.k;
  Step step{};
  step.T = s.rows;
  Memory scratch(kLinear.scratch_bytes(a) + 4096);
  std::vector<float> outputs[2];
  for (int i = 0; i < 2; i++) {
    outputs[i].assign(s.rows * s.n, 0.0f);
    a.out = outputs[i].data();
    Scratch own{scratch.data(), scratch.bytes()};
    (i ? trusted : tested)(a, step, 0, kLinear.items(a, step), own);
  }
  for (int64_t i = 0; i < s.rows * s.n; i++)
    if (memcmp(&outputs[0][i], &outputs[1][i], sizeof(float)))
      return std::string(c.name) + ", " + std::to_string(s.rows) + " rows of " + std::to_string(s.k) + " by " +
             std::to_string(s.n) + ": row " + std::to_string(i / s.n) + ", column " + std::to_string(i % s.n) + " is " +
             std::to_string(outputs[0][i]) + ", not " + std::to_string(outputs[1][i]);
  return "";
}

}  // namespace

std::string first_difference(const std::string& level, const std::string& trusted) {
  const KernelFn kernels[] = {linear_of(level), linear_of(trusted)};
  if (!kernels[0] || !kernels[1]) return "no linear of codes of level " + (kernels[0] ? trusted : level);
  for (const Case& c : kCases)
    for (const Shape& s : kShapes) {
      const std::string found = difference(kernels[0], kernels[1], c, s);
      if (!found.empty()) return found;
    }
  return "";
}

}  // namespace albireo
