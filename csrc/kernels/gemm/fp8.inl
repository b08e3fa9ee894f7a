// Weights of e4m3 numbers times bf16 activations. Every e4m3 number is a bf16 number: they are looked up, and what is
// multiplied and added is what WeightBF16 multiplies and adds. Include after gemm.inl.
//
// A chain runs over one group of k, from zero, and is multiplied by its scale where it ends; groups are added
// ascending.
#include "albireo/encoded.h"
#include "kernels/gemm/panels.h"

namespace {

// [128] the bf16 bits of each code without its sign: 2^-9 apart below 2^-6, then three bits of mantissa.
struct E4M3Table {
  uint16_t bits[128];
  constexpr E4M3Table() : bits{} {
    for (int code = 0; code < 128; code++) {
      const int exponent = code >> 3, mantissa = code & 7;
      if (exponent) {
        bits[code] = (uint16_t)((exponent + 120) << 7 | mantissa << 4);
        continue;
      }
      int top = 0;  // mantissa * 2^-9 as 1.xx * 2^(top - 9)
      while (mantissa >> (top + 1)) top++;
      if (mantissa) bits[code] = (uint16_t)((top + 118) << 7 | ((mantissa << (7 - top)) & 127));
    }
  }
};
constexpr E4M3Table kE4M3;

#ifdef ALBIREO_HAVE_BYTE_TABLES
constexpr int kFp8Rows = 20;  // a tile of one vector: four registers hold the table, four what is looked up

struct Fp8Decoder {
  __m512i low[2], high[2];  // bytes of the table
  ALBIREO_INLINE Fp8Decoder() {
    alignas(64) uint8_t bytes[2][128];
    for (int i = 0; i < 128; i++) bytes[0][i] = (uint8_t)kE4M3.bits[i], bytes[1][i] = (uint8_t)(kE4M3.bits[i] >> 8);
    for (int i = 0; i < 2; i++)
      low[i] = _mm512_load_si512(bytes[0] + 64 * i), high[i] = _mm512_load_si512(bytes[1] + 64 * i);
  }
  // 16 columns of four k: of the first two k, and of the other two
  ALBIREO_INLINE void pairs(const uint8_t* at, V& first, V& second) const {
    const __m512i codes = _mm512_loadu_si512(at);
    const __m512i sign = _mm512_and_si512(codes, _mm512_set1_epi8((char)0x80));
    const __m512i lower = _mm512_permutex2var_epi8(low[0], codes, low[1]);
    const __m512i upper = _mm512_or_si512(_mm512_permutex2var_epi8(high[0], codes, high[1]), sign);
    first = _mm512_castsi512_ps(_mm512_unpacklo_epi8(lower, upper));
    second = _mm512_castsi512_ps(_mm512_unpackhi_epi8(lower, upper));
  }
};
#else
constexpr int kFp8Rows = 4;

struct Fp8Decoder {
  ALBIREO_INLINE void pairs(const uint8_t* at, V& first, V& second) const {
    first = e4m3_pairs(at, false), second = e4m3_pairs(at, true);
  }
};
#endif

// A panel as one of bf16, the same numbers; scales stay where they are.
inline void unpack_fp8(const Encoding& e, int64_t k, const uint8_t* from, uint16_t* to) {
  const int64_t words = sub_panel_bytes(e, k) / kWord, fours = ceil_div(k, 4), pairs = ceil_div(k, 2);
  const Fp8Decoder decode;
  for (int64_t j = 0; j < kSubPanels; j++)
    for (int64_t s = 0; s < fours; s++) {
      V first, second;
      decode.pairs(from + (j * words + s) * kWord, first, second);
      float* out = (float*)(to + (j * pairs + 2 * s) * kSubPanel * 2);
      store(out, first);
      if (2 * s + 1 < pairs) store(out + kSubPanel, second);
    }
}

// MR rows by one sub-panel. a: rows, lda apart, or with tables of bytes interleaved pairs, [pairs][MR][2]; scale:
// [groups][64].
template <int MR>
void fp8_tile(const PairPolicy::A* a, [[maybe_unused]] int64_t lda, const Encoding& e, int64_t k, const uint8_t* b,
              const float* scale, float* c, int64_t ldc, int64_t fetch_bytes) {
  [[maybe_unused]] const Fp8Decoder decode;
  const int64_t groups = num_groups(e, k), fours = ceil_div(k, 4), of_group = e.group ? e.group / 4 : fours;
  for (int64_t g = 0; g < groups; g++) {
    V acc[MR][1];
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) acc[i][0] = zero();
    const int64_t end = (g + 1) * of_group < fours ? (g + 1) * of_group : fours;
    for (int64_t s = g * of_group; s < end; s++) {
      const uint8_t* at = b + s * kWord;
      prefetch_l1((const char*)at + fetch_bytes);
#ifdef ALBIREO_HAVE_BYTE_TABLES
      V first, second;
      decode.pairs(at, first, second);
      const bf16* row = a + s * 4 * MR;
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++)
        asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc[i][0]) : "v"(first), "m"(*(const float*)(row + 2 * i)));
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++)
        asm("vdpbf16ps %2%{1to16%}, %1, %0"
            : "+v"(acc[i][0])
            : "v"(second), "m"(*(const float*)(row + 2 * MR + 2 * i)));
#else
      PairPolicy::words<MR>(acc, a + s * 4, lda, e4m3_pairs(at, false));
      // of more rows codes are read again: both halves at once would take registers of sums
      if constexpr (MR > 2) asm("" ::: "memory");
      PairPolicy::words<MR>(acc, a + s * 4 + 2, lda, e4m3_pairs(at, true));
#endif
    }
    const V by = load(scale + g * kPanel);
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++)
      store(c + i * ldc, g == 0 ? mul(acc[i][0], by) : fma(acc[i][0], by, load(c + i * ldc)));
  }
}

template <int... I>
ALBIREO_INLINE void fp8_rows(int64_t rows, const PairPolicy::A* a, int64_t lda, const Encoding& e, int64_t k,
                             const uint8_t* b, const float* scale, float* c, int64_t ldc, int64_t fetch,
                             std::integer_sequence<int, I...>) {
  using Fn = void (*)(const PairPolicy::A*, int64_t, const Encoding&, int64_t, const uint8_t*, const float*, float*,
                      int64_t, int64_t);
  static constexpr Fn kRows[] = {fp8_tile<1 + I>...};
  for (int64_t j = 0; j < kSubPanels; j++)
    kRows[rows - 1](a, lda, e, k, b + j * sub_panel_bytes(e, k), scale + kSubPanel * j, c + kSubPanel * j, ldc, fetch);
}

// One panel after another, times rows of bf16.
struct Fp8Panels final : Panels {
  using A = PairPolicy::A;
  const Args& a;
  Activations<PairPolicy> x;
  const Encoding e;
  uint16_t* unpacked;
  float* part;  // [kMostChunk][kPanel] a group's sums
  int64_t unpacked_panel = -1;

  Fp8Panels(const Args& a, Scratch& scratch, char* memory)
      : a(a),
        x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (A*)memory},
        e(weight_encoding(a)),
        unpacked((uint16_t*)(memory + activation_copy_bytes(a.k))),
        part((float*)((char*)unpacked + round_up(a.k, 2) * kPanel * 2)) {}

  void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) override {
    const uint8_t* b = (const uint8_t*)a.weight + panel * encoded_panel_bytes(e, a.k);
    const float* scale = (const float*)(b + kSubPanels * sub_panel_bytes(e, a.k));
#ifdef ALBIREO_HAVE_BYTE_TABLES
    // pairs beyond k are read as they lie behind the copy: finite, and times weights of zero
    if (rows <= kFp8Rows && rows <= a.tuning.tall_rows && a.k % 4 == 0)
      return fp8_rows(rows, x.interleaved(m, rows), 0, e, a.k, b, scale, c, ldc, a.tuning.fetch_bytes,
                      std::make_integer_sequence<int, kFp8Rows>());
#else
    if (rows <= kFp8Rows && a.k % 4 == 0)
      return fp8_rows(rows, x.rows(m, rows), x.stride(), e, a.k, b, scale, c, ldc, a.tuning.fetch_bytes,
                      std::make_integer_sequence<int, kFp8Rows>());
#endif
    if (panel != unpacked_panel) unpack_fp8(e, a.k, b, unpacked);
    unpacked_panel = panel;
    const auto* wide = (const PairPolicy::B*)unpacked;
    const int64_t steps = ceil_div(a.k, 2), groups = num_groups(e, a.k), of_group = e.group ? e.group / 2 : steps;
    for (int64_t g = 0; g < groups; g++) {
      const int64_t first = g * of_group, count = steps - first < of_group ? steps - first : of_group;
      panel_part<PairPolicy>(x, m, rows, wide, steps, first, count, part, kPanel, a.tuning);
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < kPanel; j += 16) {
          const V v = load(part + i * kPanel + j), by = load(scale + g * kPanel + j);
          store(c + i * ldc + j, g == 0 ? mul(v, by) : fma(v, by, load(c + i * ldc + j)));
        }
    }
  }
};

}  // namespace
