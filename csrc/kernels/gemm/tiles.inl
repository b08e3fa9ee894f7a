// Products in tile registers: 16 rows by 16 columns of a sub-panel, 64 bytes of k at a time. Panels and rows are the
// bytes that dot products of vectors read: a word of a sub-panel is a row of a tile. Included by integers.inl where
// ALBIREO_TILES names a machine: AmxTiles, or ModelTiles that tests run.
//
// Of whole numbers a sum is what every other way gives. Of bf16 it is not: the even and the odd products of 32 k are a
// chain each, whatever the number of rows.
#include <algorithm>
#include <cstring>
#include <type_traits>

namespace {

constexpr int64_t kTileSide = 16;  // rows of a tile, and columns of sums
constexpr int64_t kTileBytes = kTileSide * 64;

template <bool kWhole, int C, int A, int B, class Machine>
ALBIREO_INLINE void tile_dot(Machine& t) {
  if constexpr (kWhole) t.template dot_int8<kSumTile + C, kRowTile + A, kColumnTile + B>();
  else t.template dot_bf16<kSumTile + C, kRowTile + A, kColumnTile + B>();
}

// Adds `steps` steps of `depth` bytes of k to the sums: of kTall tiles of rows, at a0 and a1, by kWide sub-panels; two
// by two, one by two or one by four. A function: among the addresses of its callers those of the loop would be spilled.
template <bool kWhole, int kTall, int kWide, class Machine>
__attribute__((noinline)) void tile_steps(Machine& t, const char* a0, const char* a1, int64_t lda, const char* b,
                                          int64_t sub, int64_t steps, int64_t depth) {
  for (int64_t s = 0; s < steps; s++) {
    t.template load<kRowTile>(a0, lda);
    t.template load<kColumnTile>(b, 64);
    tile_dot<kWhole, 0, 0, 0>(t);
    t.template load<kColumnTile + 1>(b + sub, 64);
    tile_dot<kWhole, 1, 0, 1>(t);
    if constexpr (kTall == 2) {
      t.template load<kRowTile + 1>(a1, lda);
      tile_dot<kWhole, 2, 1, 0>(t);
      tile_dot<kWhole, 3, 1, 1>(t);
    } else if constexpr (kWide == 4) {
      t.template load<kColumnTile>(b + 2 * sub, 64);
      tile_dot<kWhole, 2, 0, 0>(t);
      t.template load<kColumnTile + 1>(b + 3 * sub, 64);
      tile_dot<kWhole, 3, 0, 1>(t);
    }
    a0 += depth, a1 += depth, b += depth * kSubPanel;
  }
}

// The tile registers of one thread, which are configured when they are first needed and released with this object: no
// later than the kernel returns.
template <class Machine>
class ConfiguredTiles {
 public:
  ConfiguredTiles() = default;
  ConfiguredTiles(const ConfiguredTiles&) = delete;
  ConfiguredTiles& operator=(const ConfiguredTiles&) = delete;
  ~ConfiguredTiles() {
    if (rows_ > 0) machine_.release();
  }

 protected:
  void configure(int64_t rows, int64_t depth) {
    if (rows == rows_ && depth == depth_) return;
    machine_.configure(tile_config(rows, depth));
    rows_ = rows, depth_ = depth;
  }
  Machine machine_;

 private:
  int64_t rows_ = 0, depth_ = 0;  // as configured; 0: not yet
};

// Rows by a panel whose columns are one sum each.
template <class Machine>
class Tiles : protected ConfiguredTiles<Machine> {
 public:
  // C[rows, 64] = rows of A, lda bytes apart, times a panel, over so many words; up to kMostChunk rows. kWhole: of
  // 8-bit codes; C is whole numbers, and k is cut so that what all rows multiply stays in the first cache. Else of
  // bf16, whose sums stay in tile registers.
  template <bool kWhole>
  void product(const char* a, int64_t lda, int64_t rows, const char* b, int64_t sub, int64_t words, float* c,
               int64_t ldc, bool is_more = false) {
    configure(rows < kTileSide ? rows : kTileSide, 64);
    const int64_t steps = words / kTileSide, rest = words % kTileSide;
    if (rest > 0) copy_edge(a + steps * 64, lda, rows, b + steps * kTileBytes, sub, rest);
    if (rows <= kTileSide) {  // all of a panel passes once
      float* half = c + 2 * kSubPanel;
      if (is_more) load_sums(c, ldc * 4, half, ldc * 4);
      else zero_sums();
      tile_steps<kWhole, 1, 4>(machine_, a, a, lda, b, sub, steps, 64);
      if (rest > 0)
        tile_steps<kWhole, 1, 4>(machine_, edge_rows_[0], edge_rows_[0], 64, edge_columns_[0], kTileBytes, 1, 64);
      store_sums(c, ldc * 4, half, ldc * 4);
      return;
    }
    const int64_t length = kWhole ? kNearSteps : steps + 1;
    for (int64_t s = 0; s == 0 || s < steps; s += length) {
      const bool is_last = s + length >= steps;
      rows_by_panel<kWhole>(a + s * 64, lda, rows, b + s * kTileBytes, sub, is_last ? steps - s : length,
                            is_last && rest > 0, c, ldc, is_more || s > 0);
    }
  }

 protected:
  using ConfiguredTiles<Machine>::configure, ConfiguredTiles<Machine>::machine_;

 private:
  // Two tiles of rows at a time, a first one alone if they are odd; the last ends where the rows do. Where it begins
  // among those of the other tile of its pair, both begin with the same sums.
  template <bool kWhole>
  void rows_by_panel(const char* a, int64_t lda, int64_t rows, const char* b, int64_t sub, int64_t steps, bool has_edge,
                     float* c, int64_t ldc, bool is_more) {
    const int64_t tiles = ceil_div(rows, kTileSide);
    for (int64_t t = 0; t < tiles; t += t == 0 && tiles % 2 ? 1 : 2) {
      const bool is_two = t > 0 || tiles % 2 == 0;
      const int64_t row0 = t * kTileSide, row1 = is_two ? std::min(row0 + kTileSide, rows - kTileSide) : row0;
      for (int64_t j = 0; j < kSubPanels; j += 2) {
        float *c0 = c + row0 * ldc + kSubPanel * j, *c1 = c + row1 * ldc + kSubPanel * j;
        const char *a0 = a + row0 * lda, *a1 = a + row1 * lda;
        const char *e0 = edge_rows_[row0], *e1 = edge_rows_[row1], *edge = edge_columns_[j];
        if (is_more) load_sums(c0, ldc * 4, c1, ldc * 4);
        else zero_sums();
        if (is_two) {
          tile_steps<kWhole, 2, 2>(machine_, a0, a1, lda, b + j * sub, sub, steps, 64);
          if (has_edge) tile_steps<kWhole, 2, 2>(machine_, e0, e1, 64, edge, kTileBytes, 1, 64);
          store_sums(c0, ldc * 4, c1, ldc * 4);
        } else {
          tile_steps<kWhole, 1, 2>(machine_, a0, a0, lda, b + j * sub, sub, steps, 64);
          if (has_edge) tile_steps<kWhole, 1, 2>(machine_, e0, e0, 64, edge, kTileBytes, 1, 64);
          machine_.template store<kSumTile>(c0, ldc * 4);
          machine_.template store<kSumTile + 1>(c0 + kSubPanel, ldc * 4);
        }
      }
    }
  }

  ALBIREO_INLINE void zero_sums() {
    machine_.template zero<kSumTile>(), machine_.template zero<kSumTile + 1>();
    machine_.template zero<kSumTile + 2>(), machine_.template zero<kSumTile + 3>();
  }
  // Of two sub-panels at c0 and of two at c1.
  ALBIREO_INLINE void load_sums(const float* c0, int64_t stride0, const float* c1, int64_t stride1) {
    machine_.template load<kSumTile>(c0, stride0), machine_.template load<kSumTile + 1>(c0 + kSubPanel, stride0);
    machine_.template load<kSumTile + 2>(c1, stride1), machine_.template load<kSumTile + 3>(c1 + kSubPanel, stride1);
  }
  ALBIREO_INLINE void store_sums(float* c0, int64_t stride0, float* c1, int64_t stride1) {
    machine_.template store<kSumTile>(c0, stride0), machine_.template store<kSumTile + 1>(c0 + kSubPanel, stride0);
    machine_.template store<kSumTile + 2>(c1, stride1), machine_.template store<kSumTile + 3>(c1 + kSubPanel, stride1);
  }

  // The words behind the last whole step, with zeros behind them: neither rows nor panels need have room there.
  void copy_edge(const char* a, int64_t lda, int64_t rows, const char* b, int64_t sub, int64_t words) {
    memset(edge_rows_, 0, rows * 64);
    for (int64_t i = 0; i < rows; i++) memcpy(edge_rows_[i], a + i * lda, words * 4);
    memset(edge_columns_, 0, sizeof(edge_columns_));
    for (int64_t j = 0; j < kSubPanels; j++) memcpy(edge_columns_[j], b + j * sub, words * kWord);
  }

  static constexpr int64_t kNearSteps = 4;  // 256 k: 16 KiB of a panel, 28 of the most rows
  alignas(64) char edge_rows_[kMostChunk][64];
  alignas(64) char edge_columns_[kSubPanels][kTileBytes];
};

// k of rows that stay in a second-level cache of 2 MiB, which all processors with tiles have, beside panels that pass;
// and up to which they are not cut for that.
constexpr int64_t kDeep = 2048, kMostDeep = 3072;

// Weights of bf16 in tile registers, for any number of rows, so that all rows are of one numeric class.
struct WeightBF16Tiles : FloatSums {
  using A = bf16;
  static constexpr int kStep = 2;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
};
template <class Machine>
struct TiledPanels final : Panels {
  const Args& a;
  Activations<WeightBF16Tiles> x;
  Tiles<Machine> tiles;
  TiledPanels(const Args& a, Scratch& scratch, char* memory)
      : a(a), x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (bf16*)memory} {}
  int64_t steps() const override { return ceil_div(a.k, 2); }
  void part(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, float* c, int64_t ldc) override {
    run(m, rows, panel, first, count, false, c, ldc);
  }
  void add_part(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, float* c, int64_t ldc) override {
    run(m, rows, panel, first, count, true, c, ldc);
  }
  int64_t steps_at_once() const override { return a.k > kMostDeep && x.is_direct() ? kDeep / 2 : 0; }

  void run(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, bool is_more, float* c, int64_t ldc) {
    const char* b = (const char*)a.weight + (panel * kSubPanels * steps() + first) * kWord;
    const char* from = (const char*)x.rows(m, rows) + first * 4;
    tiles.template product<false>(from, x.stride() * 2, rows, b, steps() * kWord, count, c, ldc, is_more);
  }
  void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) override {
    part(m, rows, panel, 0, steps(), c, ldc);
  }
};

}  // namespace
