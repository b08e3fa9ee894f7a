// Products of groups in tile registers: a group's sums are whole numbers and leave the registers when it ends, since
// groups are added as one chain of float32. What that takes in vector registers, reading, scaling and adding 16 numbers
// a row, takes as long as the dots and longer, so that both go on at once: while one batch of groups is multiplied the
// sums of the batch before are added up. Included by integers.inl.
//
// Sums begin at the bits of kSumBias, so that they leave as float32: the number and that. Beside dots and stores of
// tiles a processor has one port for what multiplies or converts vectors and two for what adds them. A sum is stored
// when the next group is multiplied: right behind its dot it would be waited for.
#include "kernels/gemm/tiles.inl"
#include "kernels/gemm/unpack_tiles.inl"

namespace {

// A batch is up to kBatch groups of kBatch units: products of a tile of rows and a sub-panel. Two tiles of rows by two
// sub-panels, or one by all four.
constexpr int64_t kBatch = 4;

// Whole numbers below 2^22 of either sign may be added to its bits; a group has 128 products of 127 by 255 at most.
constexpr float kSumBias = 0x1.8p23f;
constexpr int32_t kSumBiasBits = 0x4b400000;

// k that all units are multiplied over before the next: long enough that units seldom change and a row's sums are
// noted many at a time. Sums of its codes that these need, from each multiple of kSumStep on.
constexpr int64_t kUnitDepth = 1024, kBatchSums = kUnitDepth / kSumStep;

// What all batches of a product have in common; distances in bytes.
struct GroupForm {
  int64_t lda;        // of rows of codes
  int64_t group;      // of a group's codes in such a row
  int64_t sub, step;  // of sub-panels, and of a group and the next
  int64_t head;       // before a group's codes
  int64_t sum_step;   // of the sum of a group's codes and the next, in floats
};
// A tile of rows and a sub-panel, from a batch's first group on.
struct GroupUnit {
  float* totals;           // kPanel apart
  const uint8_t* head;     // of the sub-panel
  const float* of_tokens;  // sums of the rows' codes, kBatchSums apart
};
struct GroupBatch {
  const char* rows[2];   // codes of the tiles' rows
  const uint8_t* panel;  // of its first sub-panel
  GroupUnit units[kBatch];
  int64_t groups;
  bool is_short;  // k ends in the first half of the last group
};

// One group of 16 rows by a sub-panel, added to their totals. sums: kTileSide a row; of_tokens: where kCodes has use of
// them. Not a lambda, and none round it: g++ 12 keeps totals that one refers to in memory.
template <TileCodes kCodes>
ALBIREO_INLINE void end_group(V (&total)[kTileSide], const float* sums, const uint8_t* head, const float* of_tokens) {
  // or addresses have two registers, with which g++'s instructions are two for the processor, not one
  asm("" : "+r"(sums), "+r"(of_tokens));
  V scale, other;
  if constexpr (kCodes == TileCodes::kWithZeros) {
    const VI words = iload((const int32_t*)head);
    scale = without_low_byte(words), other = to_float(low_byte(words));
  } else {
    scale = load((const float*)head);
    if constexpr (kCodes == TileCodes::kWithOffsets) other = load((const float*)(head + kWord));
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kTileSide; i++) {
    const V sum = add(load(sums + i * kTileSide), set1(-kSumBias));
    if constexpr (kCodes == TileCodes::kSigned) total[i] = fma(sum, scale, total[i]);
    else if constexpr (kCodes == TileCodes::kWithOffsets)
      total[i] = fma(other, set1(of_tokens[i * kBatchSums]), fma(sum, scale, total[i]));
    else total[i] = fma(fma(other, set1(of_tokens[i * kBatchSums]), sum), scale, total[i]);
  }
}

// A unit of a batch whose sums are in memory.
struct EndingUnit {
  const float* sums;
  int64_t across;  // from a group's sums to the next
  const uint8_t* head;
  int64_t step;
  const float* of_tokens;
  int64_t sum_step, groups;
};
template <TileCodes kCodes, bool kWhole, int kGroup>
ALBIREO_INLINE void end_group_of(V (&total)[kTileSide], const EndingUnit& u) {
  if (kWhole || kGroup < u.groups)
    end_group<kCodes>(total, u.sums + kGroup * u.across, u.head + kGroup * u.step, u.of_tokens + kGroup * u.sum_step);
}

// Operands of step kStep of a group. kTall: of two tiles of rows and two sub-panels; else units 2 and 3 load their
// sub-panels when those before are done.
struct GroupOperands {
  const char *a0, *a1;
  const uint8_t* b;
  int64_t lda, sub;
};
template <bool kTall, int kStep, class Machine>
ALBIREO_INLINE void load_operands(Machine& t, const GroupOperands& o) {
  t.template load<kRowTile>(o.a0 + kStep * 64, o.lda);
  t.template load<kColumnTile>(o.b + kStep * kTileBytes, 64);
  t.template load<kColumnTile + 1>(o.b + kStep * kTileBytes + o.sub, 64);
  if constexpr (kTall) t.template load<kRowTile + 1>(o.a1 + kStep * 64, o.lda);
}
template <TileCodes kCodes, bool kTall, int kStep, int kOf, class Machine>
ALBIREO_INLINE void unit_dot(Machine& t, const GroupOperands& o) {
  constexpr int kA = kTall ? kRowTile + kOf / 2 : kRowTile, kB = kColumnTile + kOf % 2;
  if constexpr (!kTall && kOf >= 2) t.template load<kB>(o.b + kStep * kTileBytes + kOf * o.sub, 64);
  if constexpr (kCodes == TileCodes::kSigned) t.template dot_signed<kSumTile + kOf, kA, kB>();
  else t.template dot_int8<kSumTile + kOf, kA, kB>();
}

// What tiles do beside a unit's ends: the sums of the group before are stored, those of the next one begin.
struct TileWork {
  GroupOperands operands;
  const int32_t* bias;
  float* to;  // of the first unit's sums
  int64_t stride;
  bool stores, multiplies, is_short;
};
template <TileCodes kCodes, bool kTall, bool kWhole, int kOf, class Machine>
ALBIREO_INLINE void begin_unit(Machine& t, const TileWork& w) {
  if (kWhole || w.stores) t.template store<kSumTile + kOf>(w.to + kOf * w.stride, 64);
  if (kWhole || w.multiplies) {
    t.template load<kSumTile + kOf>(w.bias, 0);
    unit_dot<kCodes, kTall, 0, kOf>(t, w.operands);
  }
}

template <TileCodes kCodes, int kSteps, bool kTall, bool kWhole, class Machine>
ALBIREO_INLINE void multiply_and_end(Machine& t, const TileWork& w, V (&total)[kTileSide], const EndingUnit& u) {
  if (kWhole || w.multiplies) load_operands<kTall, 0>(t, w.operands);
  begin_unit<kCodes, kTall, kWhole, 0>(t, w);
  if constexpr (kSteps == 1) {
    end_group_of<kCodes, kWhole, 0>(total, u);
    begin_unit<kCodes, kTall, kWhole, 1>(t, w);
    end_group_of<kCodes, kWhole, 1>(total, u);
    begin_unit<kCodes, kTall, kWhole, 2>(t, w);
    end_group_of<kCodes, kWhole, 2>(total, u);
    begin_unit<kCodes, kTall, kWhole, 3>(t, w);
    end_group_of<kCodes, kWhole, 3>(total, u);
  } else {
    begin_unit<kCodes, kTall, kWhole, 1>(t, w);
    end_group_of<kCodes, kWhole, 0>(total, u);
    begin_unit<kCodes, kTall, kWhole, 2>(t, w), begin_unit<kCodes, kTall, kWhole, 3>(t, w);
    end_group_of<kCodes, kWhole, 1>(total, u);
    const bool goes_on = kWhole || (w.multiplies && !w.is_short);
    if (goes_on) {
      load_operands<kTall, 1>(t, w.operands);
      unit_dot<kCodes, kTall, 1, 0>(t, w.operands), unit_dot<kCodes, kTall, 1, 1>(t, w.operands);
    }
    end_group_of<kCodes, kWhole, 2>(total, u);
    if (goes_on) unit_dot<kCodes, kTall, 1, 2>(t, w.operands), unit_dot<kCodes, kTall, 1, 3>(t, w.operands);
    end_group_of<kCodes, kWhole, 3>(total, u);
  }
}

// Where the sums of a batch lie: of unit u and group g at u * down + g * across. The next batch's take their places,
// with groups for units, so that its group i finds room once unit i of the batch before is added up.
struct GroupSlots {
  float* sums;
  const int32_t* bias;
  int64_t across, down;
};

// Multiplies `next`, of kTall, and adds up `now`. kWhole: both have kBatch groups, none short.
template <TileCodes kCodes, int kSteps, bool kTall, bool kWhole, class Machine>
__attribute__((noinline)) void turn(Machine& t, const GroupForm& f, const GroupBatch& next, const GroupBatch& now,
                                    const GroupSlots& slots) {
  for (int64_t i = 0; i < kBatch; i++) {
    const GroupUnit& unit = now.units[i];
    float* totals = unit.totals;
    const EndingUnit u{
        slots.sums + i * slots.down, slots.across, unit.head, f.step, unit.of_tokens, f.sum_step, now.groups};
    const TileWork w{
        {next.rows[0] + i * f.group, next.rows[1] + i * f.group, next.panel + i * f.step + f.head, f.lda, f.sub},
        slots.bias,
        slots.sums + (i == 0 ? (kBatch - 1) * slots.across : (i - 1) * slots.down),
        i == 0 ? slots.down : slots.across,
        i == 0 ? now.groups == kBatch : i <= next.groups,
        i < next.groups,
        next.is_short && i + 1 == next.groups};
    V total[kTileSide];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kTileSide; r++) total[r] = load(totals + r * kPanel);
    multiply_and_end<kCodes, kSteps, kTall, kWhole>(t, w, total, u);
#pragma GCC unroll 16
    for (int64_t r = 0; r < kTileSide; r++) store(totals + r * kPanel, total[r]);
  }
}

// Rows by a panel of groups, in the tile registers of one thread.
template <class Machine>
class GroupTiles : ConfiguredTiles<Machine> {
 public:
  // C[rows, 64] = rows by a panel whose groups lie as tile_bytes() has them; 16 to kMostChunk rows.
  template <TileCodes kCodes>
  void product(const TokenRows& x, int64_t rows, const Encoding& e, int64_t k, const uint8_t* b, float* c,
               int64_t ldc) {
    if (e.group > 64) groups_product<kCodes, 2>(x, rows, e, k, b, c, ldc);
    else groups_product<kCodes, 1>(x, rows, e, k, b, c, ldc);
  }

 private:
  template <TileCodes kCodes, int kSteps>
  void groups_product(const TokenRows& x, int64_t rows, const Encoding& e, int64_t k, const uint8_t* b, float* c,
                      int64_t ldc) {
    this->configure(kTileSide, e.group / kSteps);
    const GroupForm form{x.ld, e.group, sub_panel_bytes(e, k), group_bytes(e), head_bytes(e), e.group / kSumStep};
    const int64_t groups = num_groups(e, k), length = kUnitDepth / e.group;
    const int64_t tiles = ceil_div(rows, kTileSide), last = rows - kTileSide;
    const auto first_row = [&](int64_t tile) { return tile * kTileSide < last ? tile * kTileSide : last; };
    memset(totals_, 0, tiles * sizeof(totals_[0]));
    for (int32_t& bias : bias_) bias = kSumBiasBits;
    constexpr int64_t kUnitSums = kTileSide * kTileSide;
    GroupSlots slots{slots_, bias_, kUnitSums, kBatch * kUnitSums};
    // Filled where they lie: a copy would read what was only just written in other pieces, behind all tiles' stores.
    GroupBatch batches[2];
    int64_t at = 0;
    for (GroupBatch& batch : batches) {
      batch.rows[0] = batch.rows[1] = nullptr, batch.panel = b, batch.groups = 0, batch.is_short = false;
      for (GroupUnit& unit : batch.units) unit = {totals_[0][0], b, sums_[0][0]};
    }
    const auto push = [&](bool is_tall) {
      const GroupBatch &next = batches[at], &now = batches[1 - at];
      const bool is_whole = next.groups == kBatch && now.groups == kBatch && !next.is_short;
      if (is_whole && is_tall) turn<kCodes, kSteps, true, true>(this->machine_, form, next, now, slots);
      else if (is_whole) turn<kCodes, kSteps, false, true>(this->machine_, form, next, now, slots);
      else if (is_tall) turn<kCodes, kSteps, true, false>(this->machine_, form, next, now, slots);
      else turn<kCodes, kSteps, false, false>(this->machine_, form, next, now, slots);
      std::swap(slots.across, slots.down);
      at = 1 - at;
    };
    for (int64_t first = 0; first < groups; first += length) {
      const int64_t end = first + length < groups ? first + length : groups;
      float (*sums)[kBatchSums] = sums_[first / length % 2];  // a batch of the block before may need its own yet
      if constexpr (kCodes != TileCodes::kSigned)
        note_sums(x, rows, e, k, first, end, kCodes == TileCodes::kWithZeros, sums);
      for (int64_t t = 0; t < tiles; t += 2) {
        const bool is_tall = t + 1 < tiles;
        const int64_t row0 = first_row(t), row1 = is_tall ? first_row(t + 1) : row0;
        for (int64_t j = 0; j < kSubPanels; j += is_tall ? 2 : kSubPanels)
          for (int64_t g = first; g < end; g += kBatch) {
            GroupBatch& batch = batches[at];
            const char* codes = (const char*)x.codes + g * e.group;
            batch.rows[0] = codes + row0 * x.ld, batch.rows[1] = codes + row1 * x.ld;
            batch.panel = b + j * form.sub + g * form.step;
            batch.groups = end - g < kBatch ? end - g : kBatch;
            batch.is_short = g + kBatch >= groups && groups * e.group - k >= 64;
            for (int64_t u = 0; u < kBatch; u++) {
              const int64_t below = is_tall ? u / 2 : 0, column = is_tall ? u % 2 : u;
              GroupUnit& unit = batch.units[u];
              unit.totals = totals_[t + below][0] + (j + column) * kSubPanel;
              unit.head = batch.panel + column * form.sub;
              unit.of_tokens = sums[below ? row1 : row0] + (g - first) * form.sum_step;
            }
            push(is_tall);
          }
      }
    }
    batches[at].groups = 0;
    push(true);
    for (int64_t t = 0; t < tiles; t++)
      for (int64_t i = t * kTileSide - first_row(t); i < kTileSide; i++)
        for (int64_t j = 0; j < kPanel; j += kSubPanel)
          store(c + (first_row(t) + i) * ldc + j, load(totals_[t][i] + j));
  }

  // Of rows' codes in groups first .. end, from each multiple of kSumStep on; those at which groups begin are of use.
  // is_less: what they are less than nothing.
  void note_sums(const TokenRows& x, int64_t rows, const Encoding& e, int64_t k, int64_t first, int64_t end,
                 bool is_less, float (*to)[kBatchSums]) {
    const int64_t step = e.group / kSumStep, from = sum_at(k, first * e.group), count = sum_at(k, k) + 1 - from;
    const int64_t last_group = (end - 1 - first) * step;
    const auto part = [](const float* p, int64_t n) { return n >= 16 ? load(p) : n > 0 ? load_n(p, n) : zero(); };
    for (int64_t i = 0; i < rows; i++) {
      const float* sums = x.sums + i * x.ld_sums + from;
      for (int64_t s = 0; s <= last_group; s += 16) {
        const V before = part(sums + s, count - s), after = part(sums + s + step, count - s - step);
        store(to[i] + s, is_less ? sub(before, after) : sub(after, before));
      }
      if (last_group + step >= count) {  // k ends in it
        const float before = sums[last_group], after = sums[count - 1];
        to[i][last_group] = is_less ? before - after : after - before;
      }
    }
  }

  static constexpr int64_t kMostTiles = ceil_div(kMostChunk, kTileSide);
  alignas(64) float slots_[kBatch * kBatch * kTileSide * kTileSide];
  alignas(64) int32_t bias_[kTileSide];
  alignas(64) float totals_[kMostTiles][kTileSide][kPanel];
  alignas(64) float sums_[2][kMostChunk][kBatchSums];
};

}  // namespace
