// Keys and values of the positions that a row has chosen, side by side, as a tile that attention reads like any other.
// Part of attention.inl.
#pragma once
#include "kernels/attention/tile.inl"

namespace {

template <class W>
struct ChosenTile : Tile<W> {
  using B = typename W::B;
  using Tile<W>::S, Tile<W>::Dp, Tile<W>::k, Tile<W>::v;
  const int32_t* chosen;  // positions, ascending
  bool has_turned = false;

  ChosenTile(const Args& a, const int32_t* table, int64_t kv_head, char* scratch, const int32_t* positions)
      : Tile<W>(a, table, kv_head, scratch), chosen(positions) {}

  // first, end: places in the list.
  void locate(int64_t first, int64_t end) {
    this->start = first, this->stop = end, has_turned = false;
    for (int64_t j = 0; j < kAttentionSubs; j++) {
      const int64_t place = first + 16 * j, left = end - place;
      if (left > 0) take(j, chosen + place, left < 16 ? left : 16);
      else k[j] = k[0], v[j] = v[0];  // wholly masked: any finite address will do
    }
    for (int64_t j = 0; j < kAttentionSubs; j++) this->next_k[j] = k[j], this->next_v[j] = v[j];
  }

  // For the first of those who meet the tile.
  void widen_values() {
    if (!has_turned) Tile<W>::widen_values();
    has_turned = true;
  }

 private:
  // Sub-panel j from so many positions: where it lies, if it does, else a copy with zeros behind.
  void take(int64_t j, const int32_t* positions, int64_t count) {
    if (S == 16 && count == 16 && positions[0] % 16 == 0 && positions[15] - positions[0] == 15) {
      k[j] = (const B*)this->sub(positions[0]);
      v[j] = k[j] + 16 * Dp;
      return;
    }
    B* keys = (B*)(this->joined + j * 32 * Dp * sizeof(B));
    B* values = keys + 16 * Dp;
    k[j] = keys, v[j] = values;
    if (count < 16) memset((void*)keys, 0, 32 * Dp * sizeof(B));
    constexpr int64_t kStep = W::kStep;
    for (int64_t i = 0; i < count; i++) {
      const int64_t lane = positions[i] % S;
      const B* from = (const B*)this->sub(positions[i]);
      const B* key = from + lane * kStep;
      for (int64_t d = 0; d < Dp / kStep; d++)
        memcpy(keys + (d * 16 + i) * kStep, key + d * S * kStep, kStep * sizeof(B));
      if (!this->has_values) continue;
      const B* value = from + S * Dp + lane / kStep * Dp * kStep + lane % kStep;
      B* to = values + i / kStep * Dp * kStep + i % kStep;
      for (int64_t e = 0; e < Dp; e++) to[e * kStep] = value[e * kStep];
    }
  }
};

// Caches of codes are not chosen from.
template <class W>
struct ChosenTile<Coded<W>>;

}  // namespace
