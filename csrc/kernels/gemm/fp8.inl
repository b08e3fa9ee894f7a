// Weights of e4m3 numbers times bf16 activations. Every e4m3 number is a bf16 number: they are looked up, and what is
// multiplied and added is what WeightBF16 multiplies and adds. Include after gemm.inl.
//
// A chain runs over one group of k, from zero, and is multiplied by its scale where it ends; groups are added
// ascending.
#include "kernels/gemm/panels.h"
#include "kernels/gemm/unpack_fp8.inl"

namespace {

#ifdef ALBIREO_HAVE_BYTE_TABLES
constexpr int kFp8Rows = 20;  // a tile of one vector: four registers hold the table, four what is looked up
#else
constexpr int kFp8Rows = 4;
#endif

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
    for (int i = 0; i < MR; i++) add_fp8_group(c + i * ldc, acc[i][0], by, g == 0);
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
    const int64_t steps = ceil_div(a.k, 2);
    if (panel != unpacked_panel) unpack_fp8(e, a.k, b, a.tuning.fetch_bytes, unpacked);
    unpacked_panel = panel;
    const auto* wide = (const PairPolicy::B*)unpacked;
    const int64_t groups = num_groups(e, a.k), of_group = e.group ? e.group / 2 : steps;
    for (int64_t g = 0; g < groups; g++) {
      const int64_t first = g * of_group, count = steps - first < of_group ? steps - first : of_group;
      panel_part<PairPolicy>(x, m, rows, wide, steps, first, count, part, kPanel, a.tuning);
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < kPanel; j += 16)
          add_fp8_group(c + i * ldc + j, load(part + i * kPanel + j), load(scale + g * kPanel + j), g == 0);
    }
  }
};

}  // namespace
