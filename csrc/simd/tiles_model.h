// A model of the tile registers of AMX in portable code, after the pseudo-code of Intel's manual: what tests run the
// kernels on where there is no such processor. What faults there spoils the sums here.
#pragma once
#include <cstring>

#include "simd/tile_config.h"

namespace {

class ModelTiles {
 public:
  void configure(const TileConfig& c) {
    config_ = c;
    memset(tile_, 0, sizeof(tile_));
  }
  void release() { configure({.palette = 0}); }

  template <int T>
  void zero() {
    memset(tile_[T], 0, sizeof(tile_[T]));
  }
  // Rows `stride` bytes apart; what the configuration leaves of the register becomes zero.
  template <int T>
  void load(const void* from, int64_t stride) {
    zero<T>();
    for (int r = 0; r < config_.rows[T]; r++) memcpy(tile_[T][r], (const char*)from + r * stride, config_.row_bytes[T]);
  }
  template <int T>
  void store(void* to, int64_t stride) const {
    for (int r = 0; r < config_.rows[T]; r++) memcpy((char*)to + r * stride, tile_[T][r], config_.row_bytes[T]);
  }

  // tdpbsud: signed bytes of A times unsigned bytes of B, added without saturation. tdpbssd: times signed ones.
  template <int C, int A, int B>
  void dot_int8() {
    dot_bytes<C, A, B, uint8_t>();
  }
  template <int C, int A, int B>
  void dot_signed() {
    dot_bytes<C, A, B, int8_t>();
  }
  template <int C, int A, int B, class Column>
  void dot_bytes() {
    if (!fits(C, A, B)) return spoil(C);
    for (int m = 0; m < config_.rows[C]; m++)
      for (int k = 0; k < config_.row_bytes[A] / 4; k++)
        for (int n = 0; n < config_.row_bytes[C] / 4; n++) {
          uint32_t sum = get<uint32_t>(C, m, n);
          for (int i = 0; i < 4; i++)
            sum += (uint32_t)((int32_t)get<int8_t>(A, m, 4 * k + i) * (int32_t)get<Column>(B, k, 4 * n + i));
          put(C, m, n, sum);
        }
  }

  // tdpbf16ps: a chain of the even and one of the odd products of 32 k, both from zero; then their sum is added.
  template <int C, int A, int B>
  void dot_bf16() {
    if (!fits(C, A, B)) return spoil(C);
    for (int m = 0; m < config_.rows[C]; m++)
      for (int n = 0; n < config_.row_bytes[C] / 4; n++) {
        float half[2] = {};
        for (int k = 0; k < config_.row_bytes[A] / 4; k++)
          for (int i = 0; i < 2; i++)
            half[i] = flushed(
                __builtin_fmaf(number(get<bf16>(A, m, 2 * k + i)), number(get<bf16>(B, k, 2 * n + i)), half[i]));
        put(C, m, n, flushed(flushed(get<float>(C, m, n)) + flushed(half[0] + half[1])));
      }
  }

 private:
  bool fits(int c, int a, int b) const {
    return config_.palette == 1 && config_.rows[c] == config_.rows[a] && config_.row_bytes[c] == config_.row_bytes[b] &&
           config_.row_bytes[a] == 4 * config_.rows[b] && config_.rows[c] > 0 && config_.rows[c] <= 16 &&
           config_.rows[b] > 0 && config_.rows[b] <= 16 && config_.row_bytes[c] <= 64;
  }
  void spoil(int c) { memset(tile_[c], 0xff, sizeof(tile_[c])); }

  template <class T>
  T get(int tile, int row, int column) const {
    T x;
    memcpy(&x, tile_[tile][row] + column * sizeof(T), sizeof(T));
    return x;
  }
  template <class T>
  void put(int tile, int row, int column, T x) {
    memcpy(tile_[tile][row] + column * sizeof(T), &x, sizeof(T));
  }

  static float flushed(float x) { return x < 0x1p-126f && x > -0x1p-126f ? 0.0f * x : x; }
  static float number(bf16 x) { return flushed(widen(x)); }

  TileConfig config_{.palette = 0};
  alignas(64) uint8_t tile_[kTileRegisters][16][64] = {};
};

}  // namespace
