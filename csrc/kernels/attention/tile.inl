// Where one tile's keys and values are: pointers to four sub-panels of 16 positions each, of K and of V, as policy W
// reads them; and what policies there are for a cache of codes.
// Include after gemm.inl; part of attention.inl.
#pragma once
#include "kernels/attention/widen.inl"

#include <cstring>
#include <type_traits>

namespace {

// A sequence's blocks, as one KV head sees them. Positions are entries, where several positions have one.
struct HeadBlocks {
  const char* head;       // the KV head's part of block 0
  const int32_t* blocks;  // of the sequence
  int64_t S, Dp, size, sub_size, in_block_mask;
  int64_t Wp = 0;        // channels of values that are channels of keys, padded; 0: there are none
  bool has_values;       // values are stored
  int in_block, in_sub;  // positions of a block and of a sub-block, as powers of two: no division a tile
  int blocks_each;       // and blocks of an entry, which is in the last of them

  HeadBlocks(const Args& a, const int32_t* table, int64_t kv_head) : blocks(table) {
    const KVShape& s = a.kv_shape;
    head = a.kv + kv_head * block_head_bytes(s), has_values = s.has_values;
    if (!s.has_values) Wp = round_up(a.value_dim, 16);
    S = sub_block(s), Dp = s.padded_head_dim, size = block_stride(s), sub_size = sub_block_bytes(s);
    in_block_mask = block_entries(s) - 1, in_block = __builtin_ctzll(block_entries(s)), in_sub = __builtin_ctzll(S);
    blocks_each = s.every > s.block_size ? __builtin_ctzll(s.every / s.block_size) : 0;
  }

  const char* sub(int64_t position) const {
    const int64_t block = (((position >> in_block) + 1) << blocks_each) - 1;
    return head + blocks[block] * size + ((position & in_block_mask) >> in_sub) * sub_size;
  }

  // K of 16 positions from `position` on, of which those before stop are there, in sub-blocks of fewer than 8: as a
  // sub-panel of 16, zeros behind. step: bytes of a position in one step of K.
  void gather(int64_t position, int64_t stop, int64_t step, int64_t element, char* to) const {
    const int64_t there = stop - position < 16 ? stop - position : 16, steps = Dp * element / step;
    if (there < 16) memset(to, 0, 16 * Dp * element);
    for (int64_t i = 0; i < there; i += S) {
      const char* from = sub(position + i);
      const int64_t count = there - i < S ? there - i : S;
      for (int64_t d = 0; d < steps; d++) memcpy(to + (d * 16 + i) * step, from + d * S * step, count * step);
    }
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
    if (!has_values) return;
    const int64_t bytes = 8 * Dp * element;
    memcpy(to + 2 * bytes, first + bytes, bytes);
    if (second) memcpy(to + 3 * bytes, second + bytes, bytes);
    else memset(to + 3 * bytes, 0, bytes);
  }
};

// The scales of a tile's keys and values, where the cache holds codes.
struct Scales {
  alignas(64) float k[kAttentionTile];
  alignas(64) float v[kAttentionTile];
  bool is_finite;  // those of values; beyond a sequence's end lies what others left

  // Of 16 positions from `at` on, whose sub-blocks are of S; 0 where there is none. offset: bytes of codes before them.
  void copy(const char* first, const char* second, int64_t S, int64_t offset, int64_t at) {
    for (int64_t i = 0; i < 16; i += S) {
      const char* from = i == 0 ? first : second;
      const int64_t bytes = S * (int64_t)sizeof(float);
      if (from) {
        memcpy(k + at + i, from + offset, bytes);
        memcpy(v + at + i, from + offset + bytes, bytes);
      } else {
        memset(k + at + i, 0, bytes);
        memset(v + at + i, 0, bytes);
      }
    }
  }

  void look() {
    V none = zero();
    for (int64_t i = 0; i < kAttentionTile; i += 16) none = fma(load(v + i), zero(), none);
    is_finite = sum(none) == 0.0f;
  }
};
struct NoScales {};

// How queries and probabilities meet the cache:
//   a policy of gemm.inl   numbers, as they are
//   Whole                  int8: as int16 against the codes, exact sums in int32
//   Coded<policy>          fp8: the codes are widened to bfloat16, which the policy reads
// The scale of a key multiplies its column of scores, that of a value its probability.
struct Whole {
  using A = int16_t;
  using B = int8_t;
  static constexpr int kStep = 2;
  static constexpr bool kToBF16 = false;
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(V (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
    V w[NV];
#pragma GCC unroll 32
    for (int j = 0; j < NV; j++) w[j] = whole_pairs(b(j));
#pragma GCC unroll 32
    for (int i = 0; i < MR; i++) {
      const V pair = every_pair(a + i * lda);
#pragma GCC unroll 32
      for (int j = 0; j < NV; j++) add_dots(acc[i][j], w[j], pair);
    }
  }
};
// The largest whole number of a query of so many channels: sums stay below 2^31. Of a probability: 32767.
constexpr float whole_range(int64_t channels) { return channels <= 512 ? 32767.0f : (float)((1 << 24) / channels); }

template <class W>
struct Coded : W {};

template <class W>
constexpr bool kIsWhole = std::is_same_v<W, Whole>;

template <class W>
struct Tile : HeadBlocks {
  using B = typename W::B;
  static constexpr bool kStreams = true;  // whether register tiles read the cache itself, and fetch what comes next
  static constexpr bool kScaled = kIsWhole<W>;
  const B* k[kAttentionSubs];
  const B* v[kAttentionSubs];
  const B* next_k[kAttentionSubs];  // of the tile after it, to be fetched while this one is computed on
  const B* next_v[kAttentionSubs];
  char* joined;  // K and V, when blocks are smaller than a sub-panel
  std::conditional_t<kScaled, Scales, NoScales> scales;
  int64_t start = 0, stop = 0;

  Tile(const Args& a, const int32_t* table, int64_t kv_head, char* scratch)
      : HeadBlocks(a, table, kv_head), joined(scratch) {}

  void locate(int64_t first, int64_t end) {
    start = first, stop = end;
    for (int64_t j = 0; j < kAttentionSubs; j++) {
      const int64_t position = start + 16 * j;
      if constexpr (kScaled)
        scales.copy(position < stop ? sub(position) : nullptr,
                    S == 8 && position + 8 < stop ? sub(position + 8) : nullptr, S, 2 * S * Dp, 16 * j);
      if (position >= stop) {  // wholly masked: any finite address will do
        k[j] = k[0], v[j] = v[0];
      } else if (S == 16) {
        k[j] = (const B*)sub(position);
        v[j] = k[j] + 16 * Dp;
      } else if (S < 8) {
        char* to = joined + j * 32 * Dp * sizeof(B);
        gather(position, stop, W::kStep * sizeof(B), sizeof(B), to);
        k[j] = v[j] = (const B*)to;
      } else {
        char* to = joined + j * 32 * Dp * sizeof(B);
        join(sub(position), position + 8 < stop ? sub(position + 8) : nullptr, W::kStep * sizeof(B), sizeof(B), to);
        k[j] = (const B*)to;
        v[j] = k[j] + 16 * Dp;
      }
    }
    for (int64_t j = 0; j < kAttentionSubs; j++) {
      const int64_t position = start + kAttentionTile + 16 * j;
      const bool exists = position < stop;
      next_k[j] = exists ? (const B*)sub(position) : k[j];
      next_v[j] = exists ? next_k[j] + S * Dp : v[j];
      if constexpr (kScaled) {
        prefetch_l2((const char*)next_k[j] + 2 * S * Dp);
        prefetch_l2((const char*)next_k[j] + 2 * S * Dp + 64);
      }
    }
    if constexpr (kScaled) scales.look();
  }

  void widen_keys() {}
  // Of values that are channels of keys: puts them where values lie, those of positions that are not there as zeros.
  void widen_values() {
    if constexpr (!kIsWhole<W>)
      for (int64_t j = 0; Wp && j < kAttentionSubs && start + 16 * j < stop; j++) {
        B* to = (B*)(joined + (j * 32 + 16) * Dp * sizeof(B));
        turn_keys(k[j], stop - start - 16 * j, to);
        v[j] = to;
      }
  }

  // K [Dp / step][16][step] of a sub-panel as V [16 / step][Wp][step], zeros behind the positions there are.
  void turn_keys(const B* from, int64_t positions, B* to) const {
    const int64_t there = positions < 16 ? positions : 16;
    if constexpr (W::kStep == 2) {  // two channels of two positions are 64 bits in both, the middle ones in turn
      const auto turned = [](uint64_t x, bool is_whole) {
        x = (x & 0xffff00000000ffff) | (x & 0xffff0000) << 16 | (x >> 16 & 0xffff0000);
        return is_whole ? x : x & 0x0000ffff0000ffff;
      };
      for (int64_t e = 0; e < Wp; e += 2, from += 32)
        for (int64_t p = 0; p < there; p += 2) {
          uint64_t pair;
          memcpy(&pair, from + 2 * p, sizeof(pair));
          pair = turned(pair, p + 1 < there);
          memcpy(to + p * Wp + 2 * e, &pair, sizeof(pair));
        }
    } else {
      for (int64_t e = 0; e < Wp; e++, from += 16)
        for (int64_t p = 0; p < there; p++) to[p * Wp + e] = from[p];
    }
    const int64_t filled = round_up(there, W::kStep) * Wp;
    memset((void*)(to + filled), 0, (16 * Wp - filled) * sizeof(B));
  }
};

template <class W>
struct Tile<Coded<W>> : HeadBlocks {
  static_assert(sizeof(typename W::B) == sizeof(bf16) && W::kStep == 2);
  static constexpr bool kStreams = false, kScaled = true;
  const bf16* k[kAttentionSubs];
  const bf16* v[kAttentionSubs];
  const uint8_t* codes[kAttentionSubs];  // K, then V
  const uint8_t* next[kAttentionSubs];
  int64_t count;  // sub-panels that are not wholly masked
  Scales scales;
  bf16* wide;       // of K, then of V
  uint8_t* joined;  // as Tile has it

  Tile(const Args& a, const int32_t* table, int64_t kv_head, char* scratch)
      : HeadBlocks(a, table, kv_head), wide((bf16*)scratch), joined((uint8_t*)(wide + kAttentionTile * Dp)) {}

  void locate(int64_t start, int64_t stop) {
    count = 0;
    for (int64_t j = 0; j < kAttentionSubs; j++) {
      const int64_t position = start + 16 * j;
      k[j] = wide, v[j] = wide;
      const bool exists = position < stop;
      const char* first = exists ? sub(position) : nullptr;
      const char* second = S == 8 && position + 8 < stop ? sub(position + 8) : nullptr;
      scales.copy(first, second, S, 2 * S * Dp, 16 * j);
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

  void widen_keys() { widen(0); }
  void widen_values() { widen(16 * Dp); }
  void widen(int64_t from) {
    for (int64_t j = 0; j < count; j++)
      widen_codes(codes[j] + from, 16 * Dp, wide + j * 16 * Dp, (const char*)next[j] + from);
  }
};

// Pairs of bfloat16 that meet float32 activations as they are.
struct UnroundedPairs : WeightBF16 {
  template <int MR, int NV, class Ptr>
  static ALBIREO_INLINE void step(V (&acc)[MR][NV], const A* a, int64_t lda, Ptr b) {
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
      asm("" ::
              : "memory");  // pairs are loaded again: kept beside what is made of them, they take accumulators'
                            // registers
      V w[NV];
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
  static constexpr bool kToBF16 = false;
  static ALBIREO_INLINE void put(A* p, V v) { store(p, v); }
  static ALBIREO_INLINE void put_pair(A* p, V v, V w) { store(p, v), store(p + 16, w); }
};

}  // namespace
