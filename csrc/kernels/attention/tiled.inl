// Attention of bf16 in tile registers: up to three tiles of 16 rows by 16 columns of sums, 64 bytes deep. Part of
// attention.inl where ALBIREO_TILES names a machine: AmxTiles, or ModelTiles that tests run.
//
// A score adds 32 channels at once, an output 32 positions, of which the even and the odd are a chain each: whatever
// the number of rows, so that all rows are of one numeric class. What is missing at an end is zeros.
#include <utility>

#include "simd/tile_config.h"

namespace {

// Queries and keys, probabilities and values: pairs of bf16, as both operands of a tile register have them.
struct TilePairs : FloatSums {
  using A = bf16;
  using B = bf16;
  static constexpr int kStep = 2;
  static constexpr bool kToBF16 = true;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { store_two(p, v, w); }
};

template <class Machine>
class TileProducts {
 public:
  static constexpr int64_t kDepth = 32;  // channels, or positions, that a tile is deep
  static constexpr bool kMakesMaxima = false;

  TileProducts() = default;
  TileProducts(const TileProducts&) = delete;
  TileProducts& operator=(const TileProducts&) = delete;
  ~TileProducts() {
    if (rows_ > 0) machine_.release();
  }

  template <class W>
  void scores(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) {
    configure(r.rows);
    with_tiles(r.rows, [&](auto tiles) { score_tiles<tiles()>(r, t, ceil_div(positions, kSide)); });
    if constexpr (Tile<W>::kScaled)
      for (int64_t row = 0; row < r.rows; row++)
        for (int64_t j = 0; j < positions; j += 16) {
          float* s = r.scores + row * kAttentionTile + j;
          store(s, mul(load(s), load(t.scales.k + j)));
        }
  }

  template <class W>
  void values(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) {
    for (int64_t row = 0; row < r.rows; row++)
      if (r.fix[row] != 1.0f)
        for (float *out = r.out + row * r.Wp, *end = out + r.Wp; out < end; out += 16)
          store(out, mul(load(out), set1(r.fix[row])));
    configure(r.rows);
    with_tiles(r.rows, [&](auto tiles) { value_tiles<tiles()>(r, t, positions); });
  }

 private:
  static constexpr int64_t kSide = 16, kLine = 64, kRegisterBytes = kSide * kLine;
  static constexpr int kMostTiles = kAttentionRows / kSide;
  // Which register is for what: sums of each tile of rows, the rows, and columns.
  static constexpr int kSums = 0, kRows = kSums + kMostTiles, kColumns = kRows + kMostTiles;

  void configure(int64_t rows) {
    if (rows == rows_) return;
    TileConfig c;
    for (int t = 0; t < kTileRegisters; t++) {
      const int64_t left = rows - kSide * (t % kMostTiles);
      c.rows[t] = (uint8_t)(t >= kColumns || left > kSide || left <= 0 ? kSide : left);
      c.row_bytes[t] = kLine;
    }
    machine_.configure(c);
    rows_ = rows;
  }

  template <class F>
  static ALBIREO_INLINE void with_tiles(int64_t rows, F run) {
    static_assert(kMostTiles == 3);
    if (rows > 2 * kSide) run(std::integral_constant<int, 3>());
    else if (rows > kSide) run(std::integral_constant<int, 2>());
    else run(std::integral_constant<int, 1>());
  }
  template <int kTiles, class F>
  static ALBIREO_INLINE void each(F run) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
      (run(std::integral_constant<int, I>()), ...);
    }(std::make_integer_sequence<int, kTiles>());
  }

  // sums += rows times a tile of columns. stride: bytes from row to row.
  template <int kTiles>
  ALBIREO_INLINE void dots(const char* rows, int64_t stride, const char* columns) {
    machine_.template load<kColumns>(columns, kLine);
    each<kTiles>([&](auto i) {
      machine_.template load<kRows + i()>(rows + i() * kSide * stride, stride);
      machine_.template dot_bf16<kSums + i(), kRows + i(), kColumns>();
    });
  }

  template <int kTiles, class W>
  void score_tiles(const RowBlock<W>& r, const Tile<W>& t, int64_t subs) {
    const int64_t steps = r.Dp / kDepth, stride = r.Qp * (int64_t)sizeof(bf16);
    const bool has_edge = r.Dp % kDepth != 0;
    for (int64_t j = 0; has_edge && j < subs; j++)
      memcpy(edges_[j], (const char*)t.k[j] + steps * kRegisterBytes, kRegisterBytes / 2);
    for (int64_t j = 0; j < subs; j++) {
      const char *q = (const char*)r.q, *k = (const char*)t.k[j];
      each<kTiles>([&](auto i) { machine_.template zero<kSums + i()>(); });
      for (int64_t s = 0; s < steps; s++, q += kLine, k += kRegisterBytes) {
        if constexpr (Tile<W>::kStreams)
          for (int64_t line = 0; line < kSide; line++)
            prefetch_l2((const char*)t.next_k[j] + s * kRegisterBytes + line * kLine);
        dots<kTiles>(q, stride, k);
      }
      if (has_edge) dots<kTiles>(q, stride, edges_[j]);
      char* to = (char*)(r.scores + j * kSide);
      constexpr int64_t kNext = kAttentionTile * sizeof(float);
      each<kTiles>([&](auto i) { machine_.template store<kSums + i()>(to + i() * kSide * kNext, kNext); });
    }
  }

  template <int kTiles, class W>
  void value_tiles(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) {
    const int64_t steps = ceil_div(positions, kDepth), stride = r.Wp * (int64_t)sizeof(float);
    constexpr int64_t kNext = kAttentionTile * sizeof(bf16);
    put_together(r, t, 0, positions);
    for (int64_t column = 0; column < r.Wp; column += kSide) {
      if (column + kSide < r.Wp) put_together(r, t, column + kSide, positions);
      char* out = (char*)(r.out + column);
      each<kTiles>([&](auto i) { machine_.template load<kSums + i()>(out + i() * kSide * stride, stride); });
      const char *p = (const char*)r.p, *v = columns_[column / kSide % 2];
      for (int64_t s = 0; s < steps; s++) dots<kTiles>(p + s * kLine, kNext, v + s * kRegisterBytes);
      each<kTiles>([&](auto i) { machine_.template store<kSums + i()>(out + i() * kSide * stride, stride); });
    }
  }

  // 16 columns of values as tiles: of two sub-panels each, a pair of positions a row. They lie apart, and beyond the
  // positions there are lies what may be no number.
  template <class W>
  ALBIREO_INLINE void put_together(const RowBlock<W>& r, const Tile<W>& t, int64_t column, int64_t positions) {
    constexpr int64_t kPairs = kSide / 2;  // of a sub-panel
    char *to = columns_[column / kSide % 2], *end = to + ceil_div(positions, kDepth) * kRegisterBytes;
    const auto copy = [&](const bf16* from) { store((float*)to, load((const float*)from)), to += kLine; };
    for (int64_t j = 0; j * kSide < positions; j++) {
      const int64_t pairs = ceil_div(positions - j * kSide, 2);
      const bf16 *v = t.v[j] + 2 * column, *next = v;
      if constexpr (Tile<W>::kStreams) next = t.next_v[j] + 2 * column;
      for (int64_t p = 0; p < (pairs < kPairs ? pairs : kPairs); p++) {
        if constexpr (Tile<W>::kStreams) prefetch_l2((const char*)(next + p * 2 * r.Wp));
        copy(v + p * 2 * r.Wp);
      }
    }
    memset(to, 0, end - to);
  }

  Machine machine_;
  int64_t rows_ = 0;                                                       // as configured; 0: not yet
  alignas(64) char edges_[kAttentionSubs][kRegisterBytes] = {};            // the last 16 channels of keys, then zeros
  alignas(64) char columns_[2][kAttentionTile / kDepth * kRegisterBytes];  // of values, and the next ones
};

template <>
struct Products<TilePairs> : TileProducts<ALBIREO_TILES> {};
template <>
struct Products<Coded<TilePairs>> : TileProducts<ALBIREO_TILES> {};

}  // namespace
