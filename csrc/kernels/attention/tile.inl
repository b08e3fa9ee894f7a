// Where one tile's keys and values are: pointers to four sub-panels of 16 positions each, of K and of V, as policy W
// reads them. A cache of numbers is read where it lies; one of codes is widened to scratch, a tile at a time.
// Include after gemm.inl; part of attention.inl.
#pragma once
#include "kernels/attention/widen.inl"

#include <cstring>

namespace {

// A sequence's blocks, as one KV head sees them.
struct HeadBlocks {
  const char* head;       // the KV head's part of block 0
  const int32_t* blocks;  // of the sequence
  int64_t S, Dp, size, sub_size, in_block_mask;
  int in_block, in_sub;  // positions of a block and of a sub-block, as powers of two: no division a tile

  HeadBlocks(const Args& a, const int32_t* table, int64_t kv_head) : blocks(table) {
    const KVShape& s = a.kv_shape;
    head = a.kv + kv_head * block_head_bytes(s);
    S = sub_block(s), Dp = s.padded_head_dim, size = block_bytes(s), sub_size = sub_block_bytes(s);
    in_block_mask = s.block_size - 1, in_block = __builtin_ctzll(s.block_size), in_sub = __builtin_ctzll(S);
  }

  const char* sub(int64_t position) const {
    return head + blocks[position >> in_block] * size + ((position & in_block_mask) >> in_sub) * sub_size;
  }

  // K and V of two blocks of 8 positions side by side, as sub-panels of 16. step: bytes of a position in one step of K.
  // A second block that is not there is all zero.
  void join(const char* first, const char* second, int64_t step, int64_t element, char* to) const {
    const int64_t half = 8 * step;
    for (int64_t d = 0; d < Dp * element / step; d++) {
      memcpy(to + 2 * d * half, first + d * half, half);
      if (second) memcpy(to + (2 * d + 1) * half, second + d * half, half);
      else memset(to + (2 * d + 1) * half, 0, half);
    }
    const int64_t bytes = 8 * Dp * element;
    memcpy(to + 2 * bytes, first + bytes, bytes);
    if (second) memcpy(to + 3 * bytes, second + bytes, bytes);
    else memset(to + 3 * bytes, 0, bytes);
  }
};

template <class W>
struct Tile : HeadBlocks {
  using B = typename W::B;
  static constexpr bool kStreams = true;  // whether register tiles read the cache itself, and fetch what comes next
  const B* k[4];
  const B* v[4];
  const B* next_k[4];  // of the tile after it, to be fetched while this one is computed on
  const B* next_v[4];
  char* joined;  // K and V, when blocks are smaller than a sub-panel

  Tile(const Args& a, const int32_t* table, int64_t kv_head, char* scratch)
      : HeadBlocks(a, table, kv_head), joined(scratch) {}

  void locate(int64_t start, int64_t stop) {
    for (int64_t j = 0; j < 4; j++) {
      const int64_t position = start + 16 * j;
      if (position >= stop) {  // wholly masked: any finite address will do
        k[j] = k[0], v[j] = v[0];
      } else if (S == 16) {
        k[j] = (const B*)sub(position);
        v[j] = k[j] + 16 * Dp;
      } else {
        char* to = joined + j * 32 * Dp * sizeof(B);
        join(sub(position), position + 8 < stop ? sub(position + 8) : nullptr, W::kStep * sizeof(B), sizeof(B), to);
        k[j] = (const B*)to;
        v[j] = k[j] + 16 * Dp;
      }
    }
    for (int64_t j = 0; j < 4; j++) {
      const int64_t position = start + kAttentionTile + 16 * j;
      const bool exists = position < stop;
      next_k[j] = exists ? (const B*)sub(position) : k[j];
      next_v[j] = exists ? next_k[j] + S * Dp : v[j];
    }
  }

  void widen_keys() {}
  void widen_values() {}
  ALBIREO_INLINE V scaled_score(V score, int64_t) const { return score; }
  ALBIREO_INLINE V scaled_weight(V p, int64_t) const { return p; }
};

// Policy W, but the cache holds codes: exact as the bfloat16 that W reads. The scale of a key multiplies its column of
// scores, that of a value its probability.
template <class W>
struct Coded : W {};

template <class W>
struct Tile<Coded<W>> : HeadBlocks {
  static_assert(sizeof(typename W::B) == sizeof(bf16) && W::kStep == 2);
  static constexpr bool kStreams = false;
  const bf16* k[4];
  const bf16* v[4];
  const DType type;
  const uint8_t* codes[4];  // K, then V
  const uint8_t* next[4];
  int64_t count;  // sub-panels that are not wholly masked
  alignas(64) float k_scale[kAttentionTile];
  alignas(64) float v_scale[kAttentionTile];
  bf16* wide;       // of K, then of V
  uint8_t* joined;  // as Tile has it

  Tile(const Args& a, const int32_t* table, int64_t kv_head, char* scratch)
      : HeadBlocks(a, table, kv_head),
        type(a.kv_shape.dtype),
        wide((bf16*)scratch),
        joined((uint8_t*)(wide + kAttentionTile * Dp)) {}

  void locate(int64_t start, int64_t stop) {
    count = 0;
    for (int64_t j = 0; j < 4; j++) {
      const int64_t position = start + 16 * j;
      k[j] = wide, v[j] = wide;
      const bool exists = position < stop;
      const char* first = exists ? sub(position) : nullptr;
      const char* second = S == 8 && position + 8 < stop ? sub(position + 8) : nullptr;
      copy_scales(first, second, 16 * j);
      if (!exists) continue;
      count = j + 1;
      k[j] = v[j] = wide + j * 16 * Dp;
      codes[j] = (const uint8_t*)first;
      if (S == 8) {
        uint8_t* to = joined + j * 32 * Dp;
        join(first, second, 2, 1, (char*)to);
        codes[j] = to;
      }
      const int64_t after = position + kAttentionTile;
      next[j] = after < stop ? (const uint8_t*)sub(after) : codes[j];
      prefetch_l2((const char*)next[j] + 2 * S * Dp);
      prefetch_l2((const char*)next[j] + 2 * S * Dp + 64);
    }
  }

  // Of 16 positions; 0 where there is no block.
  void copy_scales(const char* first, const char* second, int64_t at) {
    for (int64_t i = 0; i < 16; i += S) {
      const char* from = i == 0 ? first : second;
      const int64_t bytes = S * (int64_t)sizeof(float);
      if (from) {
        memcpy(k_scale + at + i, from + 2 * S * Dp, bytes);
        memcpy(v_scale + at + i, from + 2 * S * Dp + bytes, bytes);
      } else {
        memset(k_scale + at + i, 0, bytes);
        memset(v_scale + at + i, 0, bytes);
      }
    }
  }

  void widen_keys() { widen(0); }
  void widen_values() { widen(16 * Dp); }
  void widen(int64_t from) {
    for (int64_t j = 0; j < count; j++)
      widen_codes(type, codes[j] + from, 16 * Dp, wide + j * 16 * Dp, (const char*)next[j] + from);
  }

  ALBIREO_INLINE V scaled_score(V score, int64_t at) const { return mul(score, load(k_scale + at)); }
  ALBIREO_INLINE V scaled_weight(V p, int64_t at) const { return mul(p, load(v_scale + at)); }
};

// Pairs of bfloat16 that meet float32 activations as they are.
struct UnroundedPairs : WeightBF16 {
  static constexpr bool kToBF16 = false;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { store(p, v), store(p + 16, w); }
};

}  // namespace
