// What the tile registers of AMX hold: eight of up to 16 rows of 64 bytes. Shared by the processor's and the model of
// it.
#pragma once
#include <cstdint>

namespace {

constexpr int kTileRegisters = 8;
// Which register is for what. Four sums: of two tiles of rows by two of columns, or of one by four.
constexpr int kSumTile = 0, kRowTile = 4, kColumnTile = 6;

// The operand of ldtilecfg.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Sums of `rows` rows by 16 columns, which are of products of `depth` bytes of k.
inline TileConfig tile_config(int64_t rows, int64_t depth) {
  TileConfig c;
  for (int t = 0; t < kTileRegisters; t++) {
    c.rows[t] = (uint8_t)(t < kColumnTile ? rows : depth / 4);
    c.row_bytes[t] = (uint16_t)(t >= kRowTile && t < kColumnTile ? depth : 64);
  }
  return c;
}

}  // namespace
