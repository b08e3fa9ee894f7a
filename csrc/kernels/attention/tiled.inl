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
    const int64_t subs = ceil_div(positions, kSide), steps = ceil_div(r.Dp, kDepth);
    if (r.Dp % kDepth != 0)
      for (int64_t j = 0; j < subs; j++)
        memcpy(edges_[j], (const char*)t.k[j] + r.Dp / kDepth * kRegisterBytes, kRegisterBytes / 2);
    switch (steps) {
      case 1: score_tiles<1>(r, t, subs, steps); break;
      case 2: score_tiles<2>(r, t, subs, steps); break;
      case 3: score_tiles<3>(r, t, subs, steps); break;
      case 4: score_tiles<4>(r, t, subs, steps); break;
      default: score_tiles<0>(r, t, subs, steps);
    }
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
    switch (ceil_div(positions, kDepth)) {
      case 1: value_tiles<1>(r, t, positions); break;
      case 2: value_tiles<2>(r, t, positions); break;
      case 3: value_tiles<3>(r, t, positions); break;
      default: value_tiles<4>(r, t, positions);
    }
  }

 private:
  static constexpr int64_t kSide = 16, kLine = 64, kRegisterBytes = kSide * kLine;
  static constexpr int kMostHeld = kAttentionTile / kDepth;
  // Of so many lines of the next tile one is fetched ahead. A tile is loaded by the line, too, and what fetches them
  // takes turns with it: of all of them, a step of one row took a fifth longer.
  static constexpr int64_t kFetched = 16;
  // Rows of a step that decodes, drafts included: it reads values from memory. Of prompts most are in a cache, where
  // what fetches them costs up to 8 %.
  static constexpr int64_t kFewRows = 2 * kSide;
  // Which register is for what: sums and rows, of the last tile of rows, which may be lower, and of those before it;
  // and columns.
  static constexpr int kSums = 0, kColumns = 2, kRows = kColumns + kMostHeld;

  void configure(int64_t rows) {
    if (rows == rows_) return;
    TileConfig c;
    for (int t = 0; t < kTileRegisters; t++) c.rows[t] = kSide, c.row_bytes[t] = kLine;
    c.rows[kSums + 1] = c.rows[kRows + 1] = (uint8_t)(rows - (ceil_div(rows, kSide) - 1) * kSide);
    machine_.configure(c);
    rows_ = rows;
  }

  // run(whether it is the last, its first row) for each tile of rows.
  template <class F>
  static ALBIREO_INLINE void each_tile(int64_t rows, F run) {
    int64_t row = 0;
    for (; row + kSide < rows; row += kSide) run(std::integral_constant<int, 0>(), row);
    run(std::integral_constant<int, 1>(), row);
  }
  template <int kCount, class F>
  static ALBIREO_INLINE void repeat(F run) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
      (run(std::integral_constant<int, I>()), ...);
    }(std::make_integer_sequence<int, kCount>());
  }

  // The sums of a tile of rows += those rows times columns.
  template <int kIsLast, int kColumn>
  ALBIREO_INLINE void dot(const char* rows, int64_t stride) {
    machine_.template load<kRows + kIsLast>(rows, stride);
    machine_.template dot_bf16<kSums + kIsLast, kRows + kIsLast, kColumns + kColumn>();
  }

  // Keys of up to 128 channels, kSteps steps of them, stay in registers for all rows; of more (0) they do not.
  template <int kSteps, class W>
  void score_tiles(const RowBlock<W>& r, const Tile<W>& t, int64_t subs, int64_t steps) {
    constexpr int64_t kNext = kAttentionTile * sizeof(float);
    const int64_t stride = r.Qp * (int64_t)sizeof(bf16), whole = r.Dp / kDepth;
    for (int64_t j = 0; j < subs; j++) {
      const auto columns = [&](int64_t s) { return s < whole ? (const char*)t.k[j] + s * kRegisterBytes : edges_[j]; };
      repeat<kSteps>([&](auto s) { machine_.template load<kColumns + s()>(columns(s()), kLine); });
      if constexpr (Tile<W>::kStreams)
        for (int64_t line = 0; line < whole * kSide; line += kFetched)
          prefetch_l2((const char*)t.next_k[j] + line * kLine);
      // Values are read by columns, an order that no processor fetches ahead: in their own, while scores are computed.
      if constexpr (Tile<W>::kStreams)
        for (int64_t line = 0; r.rows <= kFewRows && line < r.Wp / 2; line++)
          prefetch_l1((const char*)t.v[j] + line * kLine);
      each_tile(r.rows, [&](auto is_last, int64_t row) {
        const char* q = (const char*)r.q + row * stride;
        machine_.template zero<kSums + is_last()>();
        repeat<kSteps>([&](auto s) { dot<is_last(), s()>(q + s() * kLine, stride); });
        for (int64_t s = 0; kSteps == 0 && s < steps; s++) {
          machine_.template load<kColumns>(columns(s), kLine);
          dot<is_last(), 0>(q + s * kLine, stride);
        }
        machine_.template store<kSums + is_last()>((char*)(r.scores + row * kAttentionTile + j * kSide), kNext);
      });
    }
  }

  template <int kSteps, class W>
  void value_tiles(const RowBlock<W>& r, const Tile<W>& t, int64_t positions) {
    constexpr int64_t kNext = kAttentionTile * sizeof(bf16);
    const int64_t stride = r.Wp * (int64_t)sizeof(float), subs = ceil_div(positions, kSide);
    char *now = columns_[0], *then = columns_[1];
    const auto put = [&](int64_t column, int64_t j, char* to) {
      if constexpr (Tile<W>::kStreams) prefetch_l2((const char*)(t.next_v[j] + 2 * column));
      put_together(t.v[j] + 2 * column, 2 * r.Wp, positions - j * kSide, to + j * (kRegisterBytes / 2));
    };
    if (positions % kDepth != 0) memset(columns_, 0, sizeof(columns_));
    for (int64_t j = 0; j < subs; j++) put(0, j, now);
    for (int64_t column = 0; column < r.Wp; column += kSide) {
      repeat<kSteps>([&](auto s) { machine_.template load<kColumns + s()>(now + s() * kRegisterBytes, kLine); });
      // Those behind are put together meanwhile, some after each dot.
      const int64_t ahead = r.rows > kSide ? 1 : 2;
      int64_t next = column + kSide < r.Wp ? 0 : subs;
      each_tile(r.rows, [&](auto is_last, int64_t row) {
        char* out = (char*)(r.out + row * r.Wp + column);
        const char* p = (const char*)(r.p + row * kAttentionTile);
        machine_.template load<kSums + is_last()>(out, stride);
        repeat<kSteps>([&](auto s) {
          dot<is_last(), s()>(p + s() * kLine, kNext);
          for (int64_t i = 0; i < ahead && next < subs; i++) put(column + kSide, next++, then);
        });
        machine_.template store<kSums + is_last()>(out, stride);
      });
      std::swap(now, then);
    }
  }

  // 16 columns of the values of a sub-panel, a pair of positions a row, as half of a tile: sub-panels lie apart, and
  // behind the positions there are lies what may be no number. next: elements from pair to pair.
  static ALBIREO_INLINE void put_together(const bf16* v, int64_t next, int64_t positions, char* to) {
    constexpr int kPairs = kSide / 2;
    if (positions < kSide) {
      for (int64_t p = 0; p < ceil_div(positions, 2); p++) memcpy(to + p * kLine, v + p * next, kLine);
      return;
    }
    V lines[kPairs];  // all at once: a load waits for stores to the same place in another page
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; p++) lines[p] = load((const float*)(v + p * next));
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; p++) store((float*)(to + p * kLine), lines[p]);
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
