// Weights of e4m3 numbers in tile registers: what they are as bf16 is multiplied as tiles.inl multiplies bf16. A few
// rows have vectors add in the same order what tiles would. Include after integers.inl.
#include "kernels/gemm/unpack_fp8.inl"
#ifdef ALBIREO_HAVE_BYTE_TABLES
#include <immintrin.h>
#endif

namespace {

// Words of 16 columns by two k of a tile's 32 k, and bytes of their codes.
constexpr int64_t kTileWords = kTileSide, kTileCodes = kTileBytes / 2;

// Codes of 16 columns by 32 k at `at` as bf16. fetched: bytes ahead. Not a lambda: g++ 12 keeps a table that one refers
// to in memory.
ALBIREO_INLINE void unpack_fp8_step(const Fp8Decoder decode, const uint8_t* at, int64_t fetched, char* to) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileCodes / kWord; i++) {
    V pair, other;
    prefetch_l1((const char*)at + i * kWord + fetched);
    decode.pairs(at + i * kWord, pair, other);
    store((float*)(to + 2 * i * kWord), pair);
    store((float*)(to + (2 * i + 1) * kWord), other);
  }
}
template <class Machine>
ALBIREO_INLINE void multiply_step(Machine& t, const char* a, int64_t lda, const char* columns) {
  t.template load<kRowTile>(a, lda);
  t.template load<kColumnTile>(columns, 64);
  tile_dot<false, 0, 0, 0>(t);
}

// Adds `steps` steps of 32 k to the sums of one tile of rows by one sub-panel, whose codes are at b. Each is made to
// bf16 before the dots of the one before, which is in the first cache by then: a panel that is unpacked as a whole is
// read with nothing to multiply, and multiplied with nothing to read. room: of two steps. A function: see tile_steps.
template <class Machine>
__attribute__((noinline)) void fp8_tile_steps(Machine& t, const char* a, int64_t lda, const uint8_t* b, int64_t steps,
                                              int64_t fetched, char* room) {
  Fp8Decoder decode;
  char *now = room, *next = room + kTileBytes;
  unpack_fp8_step(decode, b, fetched, now);
  for (; steps > 1; steps--) {
    decode.stay();
    b += kTileCodes;
    unpack_fp8_step(decode, b, fetched, next);
    multiply_step(t, a, lda, now);
    a += 64;
    std::swap(now, next);
  }
  multiply_step(t, a, lda, now);
}

// As many rows as vectors multiply while codes come from memory; tiles of so few wait for what is stored before each.
#ifdef ALBIREO_HAVE_BYTE_TABLES
constexpr int64_t kVectorRows = 2;

// While it lives small numbers are zeros to vectors, as they are to tile registers.
class SmallAreZeros {
 public:
  SmallAreZeros() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~SmallAreZeros() { _mm_setcsr(before_); }
  SmallAreZeros(const SmallAreZeros&) = delete;
  SmallAreZeros& operator=(const SmallAreZeros&) = delete;

 private:
  unsigned before_;
};

// C[MR, 16] = rows of float32, lda apart, times so many words of a sub-panel: the chains of a tile, of the even and of
// the odd k of each 32, where small numbers are zeros. A function, so that nothing of it is done before they are.
template <int MR>
__attribute__((noinline)) void fp8_vector_rows(const float* a, int64_t lda, const uint8_t* b, int64_t words,
                                               int64_t fetched, float* c, int64_t ldc) {
  Fp8Decoder decode;
  V sums[MR];
#pragma GCC unroll 4
  for (int i = 0; i < MR; i++) sums[i] = zero();
  for (int64_t first = 0; first < words; first += kTileWords) {
    V even[MR], odd[MR];
#pragma GCC unroll 4
    for (int i = 0; i < MR; i++) even[i] = odd[i] = zero();
    const int64_t count = std::min(kTileWords, words - first);
    for (int64_t w = 0; w < count; w += 2, a += 4, b += kWord) {
      decode.stay();
      V pairs[2];
      prefetch_l1((const char*)b + fetched);
      decode.pairs(b, pairs[0], pairs[1]);
#pragma GCC unroll 2
      for (int half = 0; half < 2; half++) {
        const V first_k = even_of(pairs[half]), second_k = odd_of(pairs[half]);
#pragma GCC unroll 4
        for (int i = 0; i < MR; i++) {
          even[i] = fma(set1(a[i * lda + 2 * half]), first_k, even[i]);
          odd[i] = fma(set1(a[i * lda + 2 * half + 1]), second_k, odd[i]);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; i++) sums[i] = add(sums[i], add(even[i], odd[i]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < MR; i++) store(c + i * ldc, sums[i]);
}
template <int... I>
inline void vector_rows(int64_t rows, const float* a, int64_t lda, const uint8_t* b, int64_t words, int64_t fetched,
                        float* c, int64_t ldc, std::integer_sequence<int, I...>) {
  using Fn = void (*)(const float*, int64_t, const uint8_t*, int64_t, int64_t, float*, int64_t);
  static constexpr Fn kRows[] = {fp8_vector_rows<1 + I>...};
  kRows[rows - 1](a, lda, b, words, fetched, c, ldc);
}
#else
constexpr int64_t kVectorRows = 0;
#endif

template <class Machine>
class Fp8Tiles : public Tiles<Machine> {
 public:
  // C[rows, 16] = up to kTileSide rows, lda bytes apart, times so many words of a sub-panel of codes. room: of two
  // steps.
  void few_rows(const char* a, int64_t lda, int64_t rows, const uint8_t* b, int64_t words, int64_t fetched, char* room,
                float* c) {
    const int64_t steps = words / kTileWords, rest = words % kTileWords;
    this->configure(rows, 64);
    this->machine_.template zero<kSumTile>();
    if (steps > 0) fp8_tile_steps(this->machine_, a, lda, b, steps, fetched, room);
    if (rest > 0) {  // zeros behind k, where neither rows nor codes need have any
      memset(edge_rows_, 0, rows * 64);
      for (int64_t i = 0; i < rows; i++) memcpy(edge_rows_[i], a + steps * 64 + i * lda, rest * 4);
      memset(room, 0, kTileBytes);
      unpack_fp8_words(b + steps * kTileCodes, rest, 0, (float*)room);
      multiply_step(this->machine_, edge_rows_[0], 64, room);
    }
    this->machine_.template store<kSumTile>(c, kSubPanel * 4);
  }

 private:
  alignas(64) char edge_rows_[kTileSide][64];
};

template <class Machine>
struct TiledFp8Panels final : Panels {
  const Args& a;
  Activations<WeightBF16Tiles> x;
  const Encoding e;
  uint16_t* unpacked;
  float* part;  // [kMostChunk][kPanel] a group's sums
  int64_t unpacked_panel = -1;
  Fp8Tiles<Machine> tiles;

  TiledFp8Panels(const Args& a, Scratch& scratch, char* memory)
      : a(a),
        x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (bf16*)memory},
        e(weight_encoding(a)),
        unpacked((uint16_t*)(memory + activation_copy_bytes(a.k))),
        part((float*)((char*)unpacked + round_up(a.k, 2) * kPanel * 2)) {}

  void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) override {
    const uint8_t* b = (const uint8_t*)a.weight + panel * encoded_panel_bytes(e, a.k);
    const float* scale = (const float*)(b + kSubPanels * sub_panel_bytes(e, a.k));
    const bf16* from = x.rows(m, rows);
#ifdef ALBIREO_HAVE_BYTE_TABLES
    const SmallAreZeros zeros;  // whatever the number of rows, so that scales do the same to all
#endif
    if (rows <= kTileSide) return few_rows(from, rows, b, scale, c, ldc);
    const int64_t steps = ceil_div(a.k, 2);
    if (panel != unpacked_panel) unpack_fp8(e, a.k, b, a.tuning.fetch_bytes, unpacked);
    unpacked_panel = panel;
    for (int64_t g = 0; g < num_groups(e, a.k); g++) {
      const int64_t first = first_word(g);
      tiles.template product<false>((const char*)(from + 2 * first), x.stride() * 2, rows,
                                    (const char*)unpacked + first * kWord, steps * kWord, first_word(g + 1) - first,
                                    part, kPanel);
      for (int64_t j = 0; j < kPanel; j += kSubPanel) add_group(g, part + j, kPanel, rows, scale + j, c + j, ldc);
    }
  }

 private:
  int64_t first_word(int64_t g) const { return std::min(g * (e.group ? e.group / 2 : a.k), ceil_div(a.k, 2)); }
  void add_group(int64_t g, const float* sums, int64_t lds, int64_t rows, const float* scale, float* c, int64_t ldc) {
    const V by = load(scale + g * kPanel);
    for (int64_t i = 0; i < rows; i++) add_fp8_group(c + i * ldc, load(sums + i * lds), by, g == 0);
  }

  // Codes as they lie, a sub-panel from its first to its last: one stream.
  void few_rows(const bf16* from, int64_t rows, const uint8_t* b, const float* scale, float* c, int64_t ldc) {
    unpacked_panel = -1;  // there is room for these
#ifdef ALBIREO_HAVE_BYTE_TABLES
    if (rows <= kVectorRows) widen_rows(from, rows);
#endif
    for (int64_t j = 0; j < kSubPanels; j++, b += sub_panel_bytes(e, a.k), scale += kSubPanel, c += kSubPanel)
      for (int64_t g = 0; g < num_groups(e, a.k); g++) {
        const int64_t first = first_word(g), count = first_word(g + 1) - first;
        const uint8_t* codes = b + first / 2 * kWord;
#ifdef ALBIREO_HAVE_BYTE_TABLES
        if (rows <= kVectorRows)
          vector_rows(rows, (const float*)unpacked + 2 * first, round_up(a.k, 4), codes, count, a.tuning.fetch_bytes,
                      part, kSubPanel, std::make_integer_sequence<int, kVectorRows>());
        else
#endif
          tiles.few_rows((const char*)(from + 2 * first), x.stride() * 2, rows, codes, count, a.tuning.fetch_bytes,
                         (char*)unpacked, part);
        add_group(g, part, kSubPanel, rows, scale, c, ldc);
      }
  }
#ifdef ALBIREO_HAVE_BYTE_TABLES
  // Where a panel is unpacked to otherwise, with zeros behind k.
  void widen_rows(const bf16* from, int64_t rows) {
    float* to = (float*)unpacked;
    for (int64_t i = 0; i < rows; i++, from += x.stride(), to += round_up(a.k, 4))
      for (int64_t k = 0; k < a.k; k += 16) store(to + k, x.load_narrow(from + k, a.k - k));
  }
#endif
};

}  // namespace
