// C[m, n] = sum_k A[m, k] * W[n, k] for rows of A against one 64-column panel of W. The heart of linear, qkv_rope_kv,
// head_top and attention.
//
// One output is one chain: ascending k in one float32 lane (bf16 on bf16 hardware: ascending pairs). Splitting rows
// into tiles, K into blocks, or panels among threads never changes a bit: a chain spilled to memory between K blocks
// is reloaded exactly. Row m of C depends on row m of A only.
//
// Include after a vec_<isa>.h. Policies say how a weight format meets an activation:
//   A, B         element types as the register tile reads them
//   Acc          a vector of 16 sums; start, get and keep_sum make one, and move it from and to 16 words of C
//   kStep        k consumed per step; a step of a sub-panel is 16 * kStep elements of B
//   step<MR, NV> one step for MR rows by NV vectors of 16 columns
//   kTokens      activations are 8-bit codes with a scale a token, and are read where they lie
//   kToBF16      whether put rounds activations to bf16; put_pair takes 32 of them
#include <utility>

#include "albireo/kernel.h"
#include "albireo/split.h"
#include "albireo/tokens.h"

namespace {
using namespace albireo;

struct FloatSums {
  using Acc = V;
  static constexpr bool kTokens = false;
  static ALBIREO_INLINE Acc start() { return zero(); }
  static ALBIREO_INLINE Acc get(const float* c) { return load(c); }
  static ALBIREO_INLINE void keep_sum(float* c, Acc sum) { store(c, sum); }
};

struct WeightF32 : FloatSums {
  using A = float;
  using B = float;
  static constexpr int kStep = 1;
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(V (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
    V w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) w[j] = load(b(j));
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) {
      const V x = set1(a[i * lda]);
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) acc[i][j] = fma(x, w[j], acc[i][j]);
    }
  }
  static constexpr bool kToBF16 = false;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { store(p, v), store(p + 16, w); }
};

struct WeightF16 : WeightF32 {  // f16 weights widened in registers; activations float32
  using B = f16;
};

struct WeightBF16 : FloatSums {  // pairs widened to two float32 products: levels without a bf16 dot product
  using A = float;
  using B = bf16;
  static constexpr int kStep = 2;
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(V (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
    V w[NV];  // first the even k of the pair, then the odd: both at once would not fit in 16 registers
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) w[j] = odd ? pair_odd(b(j)) : pair_even(b(j));
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++) {
        const V x = set1(a[i * lda + odd]);
#pragma GCC unroll 32
        for (int j = 0; j < NV; j++) acc[i][j] = fma(x, w[j], acc[i][j]);
      }
    }
  }
  // The same of pairs that are in registers.
  template <int MR>
  static ALBIREO_INLINE void words(V (&acc)[MR][1], const A* a, int64_t lda, V pairs) {
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
      const V w = odd ? odd_of(pairs) : even_of(pairs);
#pragma GCC unroll 32
      for (int i = 0; i < MR; i++) acc[i][0] = fma(set1(a[i * lda + odd]), w, acc[i][0]);
    }
  }
  static constexpr bool kToBF16 = true;
  static ALBIREO_INLINE void put(A* p, V v) {  // the value a bf16 activation would have
    bf16 tmp[16];
    store(tmp, v);
    store(p, load(tmp));
  }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { put(p, v), put(p + 16, w); }
};

// Whether a level has RowPairs for products of a policy.
template <class W>
constexpr bool kInRowPairs = false;

#ifdef ALBIREO_HAVE_BF16_DOT
struct WeightBF16Dot : FloatSums {
  using A = bf16;
  using B = bf16;
  static constexpr int kStep = 2;
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(V (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
    V w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) w[j] = load((const float*)b(j));
    bf16_dots<MR, NV>(acc, w, a, lda);
  }
  template <int MR>
  static ALBIREO_INLINE void words(V (&acc)[MR][1], const A* a, int64_t lda, V pairs) {
    const V w[1] = {pairs};
    bf16_dots<MR, 1>(acc, w, a, lda);
  }
  static constexpr bool kToBF16 = true;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { store_two(p, v, w); }
};
template <>
constexpr bool kInRowPairs<WeightBF16Dot> = true;
using PairPolicy = WeightBF16Dot;
#else
using PairPolicy = WeightBF16;
#endif

// Rows of activations as policy W reads them: where they lie, or a copy in scratch when the type differs or when
// K is not a whole number of steps (the copy is padded with zeros). Scratch remembers which rows its copies hold.
template <class W>
struct Activations {
  using A = typename W::A;
  const void* x;
  DType dtype;
  int64_t k, source_stride;
  Scratch& scratch;
  A* copy;  // activation_copy_bytes(k)

  static constexpr DType direct() { return sizeof(A) == 4 ? DType::kF32 : DType::kBF16; }
  bool is_direct() const { return W::kTokens || (dtype == direct() && k % W::kStep == 0); }
  int64_t stride() const { return is_direct() ? source_stride : round_up(k, 16); }

  const A* rows(int64_t m, int64_t count) {
    if (!is_direct() && !holds(m, count, 0)) fill_rows(m, count);
    return source(m);
  }

#ifdef ALBIREO_TALL_ROWS
  // [steps][count][kStep]: what a tall tile reads in one step lies together; where tiles are `height` rows high and the
  // last what is left, tile by tile. Of tokens the zeros behind k, too: a code behind k of kFp4 stands for 0 and is
  // another number, so that what it is multiplied with has to be 0.
  const A* interleaved(int64_t m, int64_t count) { return interleaved(m, count, count); }
  const A* interleaved(int64_t m, int64_t count, int64_t height) {
    if (count == 1) return rows(m, 1);
    const int64_t steps = W::kTokens ? token_codes(k) / W::kStep : ceil_div(k, W::kStep);
    A* out = copy + kMostChunk * round_up(k, 16);
    if (holds(m, count, height)) return out;
    if (!is_direct()) fill_rows(m, count);
    const A* from = source(m);
    for (int64_t i = 0; i < count; i += height)
      interleave(from + i * stride(), count - i < height ? count - i : height, steps, out + i * steps * W::kStep);
    return out;
  }
  void interleave(const A* from, int64_t count, int64_t steps, A* out) {
    if constexpr (W::kStep * sizeof(A) == 4)
      interleave_words((const uint32_t*)from, stride() * sizeof(A) / 4, count, steps, (uint32_t*)out);
    else
      for (int64_t s = 0; s < steps; s++)
        for (int64_t i = 0; i < count * W::kStep; i++)
          out[s * count * W::kStep + i] = from[i / W::kStep * stride() + s * W::kStep + i % W::kStep];
  }
#endif

  // Whether the copies hold these rows, for tiles so high; from now on they do. Weights of two encodings may share
  // them.
  bool holds(int64_t m, int64_t count, int64_t height) {
    const bool held = scratch.held_row == m && scratch.held_rows == count && scratch.held_height == height;
    scratch.held_row = m, scratch.held_rows = count, scratch.held_height = height;
    return held;
  }

  const A* source(int64_t m) const { return is_direct() ? (const A*)x + m * source_stride : copy; }
  void fill_rows(int64_t m, int64_t count) const {
    if constexpr (!W::kTokens)
      for (int64_t i = 0; i < count; i++) fill(copy + i * stride(), (m + i) * source_stride);
  }
  void fill(A* to, int64_t from) const {
    for (int64_t e = 0; e < k; e += 16) {
      const int64_t n = k - e;
      V v;
      if (dtype == DType::kF32) v = n >= 16 ? load((const float*)x + from + e) : load_n((const float*)x + from + e, n);
      else if (dtype == DType::kBF16) v = load_narrow((const bf16*)x + from + e, n);
      else v = load_narrow((const f16*)x + from + e, n);
      W::put(to + e, v);
    }
  }
  void fetch(int64_t from) const {  // a row that is needed soon
    const int64_t element = dtype_size(dtype);
    for (int64_t byte = 0; byte < k * element; byte += 64) prefetch_l2((const char*)x + from * element + byte);
  }
  template <class T>
  static V load_narrow(const T* p, int64_t n) {
    if (n >= 16) return load(p);
    T tmp[16] = {};
    for (int64_t i = 0; i < n; i++) tmp[i] = p[i];
    return load(tmp);
  }
};

// As many steps of MR rows by one sub-panel as go two at a time: all, or all but one; none where a level has no
// RowPairs. next: elements of B from step to step.
template <class W, int MR, int NV, class Acc>
ALBIREO_INLINE int64_t paired_steps([[maybe_unused]] Acc (&acc)[MR][NV], [[maybe_unused]] const typename W::A* a,
                                    [[maybe_unused]] int64_t lda, [[maybe_unused]] const typename W::B* b,
                                    [[maybe_unused]] int64_t next, [[maybe_unused]] int64_t steps,
                                    [[maybe_unused]] const char* ahead) {
#ifdef ALBIREO_HAVE_ROW_PAIRS
  if constexpr (kInRowPairs<W> && MR > 1 && NV == 1) {
    RowPairs<MR> pairs(acc);
    for (int64_t s = 0; s + 2 <= steps; s += 2) {
      prefetch_l1(ahead + 64 * s);
      prefetch_l1(ahead + 64 * s + 64);
      const typename W::B* at = b + s * next;
      pairs.add([&](int q) { return two_words(at, at + next, q); }, (const char*)(a + s * W::kStep),
                lda * (int64_t)sizeof(*a));
    }
    pairs.give(acc);
    return steps / 2 * 2;
  }
#endif
  return 0;
}

// MR rows by NV sub-panels over steps. sub: elements from one sub-panel of B to the next. accumulate: start from C.
// lda, advance: elements of A from row to row and from step to step. ahead: a line from here on is fetched each
// step.
template <class W, int MR, int NV>
ALBIREO_INLINE void tile(const typename W::A* a, int64_t lda, int64_t advance, const typename W::B* b, int64_t sub,
                         int64_t steps, float* c, int64_t ldc, bool accumulate, const char* ahead) {
  typename W::Acc acc[MR][NV];
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) acc[i][j] = accumulate ? W::get(c + i * ldc + 16 * j) : W::start();
  for (int64_t s = paired_steps<W, MR, NV>(acc, a, lda, b, kSubPanel * W::kStep, steps, ahead); s < steps; s++) {
    prefetch_l1(ahead + 64 * s);
    W::template step<MR, NV>(acc, a + s * advance, lda, [&](int j) { return b + j * sub + s * kSubPanel * W::kStep; });
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) W::keep_sum(c + i * ldc + 16 * j, acc[i][j]);
}

// One pass of a wide tile: up to kTileRows rows, kTileVectors sub-panels at a time.
template <class W>
void wide_rows(int64_t rows, const typename W::A* a, int64_t lda, const typename W::B* b, int64_t sub, int64_t steps,
               float* c, int64_t ldc, bool accumulate, const char* ahead) {
  for (int64_t j = 0; j < kSubPanels; j += kTileVectors) {
    const typename W::B* bj = b + j * sub;
    float* cj = c + kSubPanel * j;
    switch (rows) {
      case 1: tile<W, 1, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead); break;
      case 2: tile<W, 2, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead); break;
      case 3: tile<W, 3, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead); break;
      case 4: tile<W, 4, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead); break;
      case 5:
        if constexpr (kTileRows >= 5)
          tile<W, 5, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead);
        break;
      case 6:
        if constexpr (kTileRows >= 6)
          tile<W, 6, kTileVectors>(a, lda, W::kStep, bj, sub, steps, cj, ldc, accumulate, ahead);
        break;
    }
  }
}

#ifdef ALBIREO_TALL_ROWS
// A: interleaved, see Activations::interleaved. Where it lies in rows, each dot needs an address of its own: 28 of them
// do not fit in the registers there are, and their arithmetic, not the dots, was what a tall tile took its time for.
template <class W, int MR>
void tall_rows(const typename W::A* a, const typename W::B* panel, int64_t sub, int64_t steps, float* c, int64_t ldc,
               int64_t fetch_bytes) {
  for (int64_t j = 0; j < kSubPanels; j++)
    tile<W, MR, 1>(a, W::kStep, MR * W::kStep, panel + j * sub, sub, steps, c + kSubPanel * j, ldc, false,
                   (const char*)(panel + j * sub) + fetch_bytes);
}

template <class W, int... I>
ALBIREO_INLINE void tall_product(int64_t rows, const typename W::A* a, const typename W::B* panel, int64_t sub,
                                 int64_t steps, float* c, int64_t ldc, int64_t fetch_bytes,
                                 std::integer_sequence<int, I...>) {
  using Fn = void (*)(const typename W::A*, const typename W::B*, int64_t, int64_t, float*, int64_t, int64_t);
  static constexpr Fn kRows[] = {tall_rows<W, 1 + I>...};
  kRows[rows - 1](a, panel, sub, steps, c, ldc, fetch_bytes);
}
#endif

// C[rows, 64] = rows m0 .. m0 + rows of x, times a panel.
//   few rows    one pass of a wide tile: the panel streams from memory
//   some rows   (where registers allow) one pass of a tall tile, sub-panel by sub-panel: every weight is still used
//               for all rows as it passes, so arithmetic hides behind the stream. Two passes would not: the first waits
//               for memory while the dots idle, the second has memory idle
//   many rows   K blocks that stay in L2, wide tiles of nearly equal height: 8 = 4 + 4, not 6 + 2. Blocks are of equal
//               length, since each fetches as many steps of the next as it has itself
//
// Over `count` of the panel's steps, from `first` on: a part of K, for sums that are no chain over all of it.
template <class W>
void panel_part(Activations<W>& x, int64_t m0, int64_t rows, const typename W::B* panel, int64_t steps, int64_t first,
                int64_t count, float* c, int64_t ldc, const Tuning& tuning) {
  const int64_t sub = steps * kSubPanel * W::kStep;
#ifdef ALBIREO_TALL_ROWS
  if (rows <= tuning.tall_rows)
    return tall_product<W>(rows, x.interleaved(m0, rows) + first * rows * W::kStep,
                           panel + first * kSubPanel * W::kStep, sub, count, c, ldc, tuning.fetch_bytes,
                           std::make_integer_sequence<int, kTallRows>());
#endif
  const typename W::A* a = x.rows(m0, rows);
  const int64_t lda = x.stride(), tiles = ceil_div(rows, kTileRows), height = rows / tiles, taller = rows % tiles;
  const int64_t length = ceil_div(count, ceil_div(count, tuning.block_steps)), end = first + count;
  for (int64_t s0 = first; s0 < end; s0 += length) {
    const int64_t n = end - s0 < length ? end - s0 : length;
    const typename W::B* b = panel + s0 * kSubPanel * W::kStep;
    const typename W::B* next = s0 + n < steps ? b + n * kSubPanel * W::kStep : panel + kSubPanels * sub;
    for (int64_t t = 0, m = 0; t < tiles; t++) {
      const int64_t h = height + (t < taller);
      wide_rows<W>(h, a + m * lda + s0 * W::kStep, lda, b, sub, n, c + m * ldc, ldc, s0 > first,
                   (const char*)(next + t % kSubPanels * sub));
      m += h;
    }
  }
}

template <class W>
void panel_product(Activations<W>& x, int64_t m0, int64_t rows, const typename W::B* panel, int64_t steps, float* c,
                   int64_t ldc, const Tuning& tuning) {
  panel_part<W>(x, m0, rows, panel, steps, 0, steps, c, ldc, tuning);
}

// Elements of a panel of W for inner size k.
template <class W>
constexpr int64_t panel_elements(int64_t k) {
  return ceil_div(k, W::kStep) * kPanel * W::kStep;
}

ALBIREO_INLINE void store_as(DType t, void* base, int64_t at, V v, int64_t n) {
  if (t == DType::kF32) n >= 16 ? store((float*)base + at, v) : store_n((float*)base + at, v, n);
  else if (t == DType::kBF16) n >= 16 ? store((bf16*)base + at, v) : store_n((bf16*)base + at, v, n);
  else n >= 16 ? store((f16*)base + at, v) : store_n((f16*)base + at, v, n);
}

}  // namespace
