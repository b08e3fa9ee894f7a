#include "kernels/pack/pack.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "albireo/cpu_info.h"
#include "simd/vec_scalar.h"

namespace albireo {
namespace {

constexpr int64_t kBlock = 16;  // elements of 4 bytes: a cache line of each row at a time

template <class From, class To>
To convert(From x) {
  To y;
  narrow(widen(x), &y);
  return y;
}
template <>
bf16 convert<bf16, bf16>(bf16 x) {
  return x;
}
template <>
f16 convert<f16, f16>(f16 x) {
  return x;
}

template <class From>
From element(const void* row, int64_t k) {
  From x{};
  if (row) memcpy(&x, (const From*)row + k, sizeof(x));
  return x;
}

#if defined(__x86_64__)
bool has_avx512() {
  static const bool yes = [] {
    for (const std::string& level : isa_levels())
      if (level == "avx512") return true;
    return false;
  }();
  return yes;
}
#endif

// Four words of four rows, of null none, as four words of four columns, 16 apart.
void transpose_four(const void* const* rows, int64_t at, uint32_t* out) {
  U4 r[4];
  for (int i = 0; i < 4; i++) r[i] = rows[i] ? read<U4>((const uint32_t*)rows[i] + at) : U4{};
  const U4 low = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5),
           high = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const U4 lower = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5),
           higher = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  const U4 columns[4] = {
      __builtin_shufflevector(low, lower, 0, 1, 4, 5), __builtin_shufflevector(low, lower, 2, 3, 6, 7),
      __builtin_shufflevector(high, higher, 0, 1, 4, 5), __builtin_shufflevector(high, higher, 2, 3, 6, 7)};
  for (int i = 0; i < 4; i++) memcpy(out + i * kSubPanel, columns + i, 16);
}

// The common case moves 32-bit words: 64 rows of `words` of them into sub-panels of `steps`, a line of each row at a
// time.
void transpose_words(const void* const* rows, int64_t words, int64_t steps, bool wide, uint32_t* to) {
#if defined(__x86_64__)
  if (wide && has_avx512()) return transpose_words_avx512(rows, words, steps, to);
#else
  (void)wide;
#endif
  const int64_t fours = words / 4 * 4;
  for (int64_t c0 = 0; c0 < kPanel; c0 += kSubPanel)
    for (int64_t s0 = 0; s0 < words; s0 += kBlock) {
      uint32_t* line = to + c0 * steps + s0 * kSubPanel;
      const int64_t end = std::min(s0 + kBlock, words);
      for (int64_t s = s0; s < std::min(end, fours); s += 4)
        for (int64_t c = 0; c < kSubPanel; c += 4) transpose_four(rows + c0 + c, s, line + (s - s0) * kSubPanel + c);
      for (int64_t s = std::max(s0, fours); s < end; s++)
        for (int64_t c = 0; c < kSubPanel; c++) line[(s - s0) * kSubPanel + c] = element<uint32_t>(rows[c0 + c], s);
    }
}

void pack_pairs(const void* const* rows, int64_t k, bool wide, char* out) {
  uint32_t* to = (uint32_t*)out;
  const int64_t pairs = k / 2, steps = ceil_div(k, 2);
  transpose_words(rows, pairs, steps, wide, to);
  if (k % 2)
    for (int64_t c = 0; c < kPanel; c++)
      to[(c / kSubPanel * steps + pairs) * kSubPanel + c % kSubPanel] = element<bf16>(rows[c], k - 1).bits;
}

template <class From, class To>
void pack_panel(const void* const* rows, int64_t k, char* out) {
  constexpr int64_t step = std::is_same_v<To, bf16> ? 2 : 1;
  const int64_t steps = ceil_div(k, step);
  To* to = (To*)out;
  for (int64_t e0 = 0; e0 < steps * step; e0 += kBlock)
    for (int64_t c = 0; c < kPanel; c++)
      for (int64_t e = e0; e < std::min(e0 + kBlock, steps * step); e++) {
        const int64_t at = ((c / kSubPanel * steps + e / step) * kSubPanel + c % kSubPanel) * step + e % step;
        to[at] = e < k ? convert<From, To>(element<From>(rows[c], e)) : To{};
      }
}

template <class From, class To>
void pack_row(const void* row, int64_t k, char* out) {
  for (int64_t e = 0; e < k; e++) {
    const To x = convert<From, To>(element<From>(row, e));
    memcpy(out + e * sizeof(To), &x, sizeof(x));
  }
}

template <class From>
void panel_from(const void* const* rows, int64_t k, DType to, char* out) {
  if (to == DType::kF32) pack_panel<From, float>(rows, k, out);
  else if (to == DType::kF16) pack_panel<From, f16>(rows, k, out);
  else pack_panel<From, bf16>(rows, k, out);
}

template <class From>
void row_from(const void* row, int64_t k, DType to, char* out) {
  if (to == DType::kF32) pack_row<From, float>(row, k, out);
  else if (to == DType::kF16) pack_row<From, f16>(row, k, out);
  else pack_row<From, bf16>(row, k, out);
}

}  // namespace

int64_t panel_bytes(DType to, int64_t k) { return kPanel * dtype_size(to) * (to == DType::kBF16 ? round_up(k, 2) : k); }

void pack_panels(const void* const* rows, int64_t k, DType from, DType to, bool wide, char* out, int64_t begin,
                 int64_t end) {
  const int64_t bytes = panel_bytes(to, k);
  for (int64_t p = begin; p < end; p++) {
    const void* const* r = rows + p * kPanel;
    char* at = out + p * bytes;
    if (from == DType::kBF16 && to == DType::kBF16) pack_pairs(r, k, wide, at);
    else if (from == DType::kF32 && to == DType::kF32) transpose_words(r, k, k, wide, (uint32_t*)at);
    else if (from == DType::kF32) panel_from<float>(r, k, to, at);
    else if (from == DType::kF16) panel_from<f16>(r, k, to, at);
    else panel_from<bf16>(r, k, to, at);
  }
}

void pack_rows(const void* const* rows, int64_t k, DType from, DType to, char* out, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; n++) {
    char* at = out + n * k * dtype_size(to);
    if (from == to && rows[n]) memcpy(at, rows[n], k * dtype_size(to));
    else if (from == DType::kF32) row_from<float>(rows[n], k, to, at);
    else if (from == DType::kF16) row_from<f16>(rows[n], k, to, at);
    else row_from<bf16>(rows[n], k, to, at);
  }
}

}  // namespace albireo
