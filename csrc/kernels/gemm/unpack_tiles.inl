// Weights of 6 bits and fewer as the bytes that tile registers multiply. Those are of either sign, so that codes are
// what they stand for, with no zero to take off; but of encodings with offsets, whose zero is no whole number.
#include "kernels/gemm/unpack.inl"

namespace {

// What the bytes of groups in tiles are: numbers of either sign; unsigned codes of groups that have offsets; unsigned
// codes of groups whose zeros are in the last bits of their scales, which are panels as they lie.
enum class TileCodes { kSigned, kWithOffsets, kWithZeros };

// How they lie: as codes of eight bits do, the head of a group one line of scales and, affine, one of offsets.
constexpr Encoding tile_bytes(const Encoding& e) { return {DType::kInt8Group, e.group, e.affine}; }
constexpr TileCodes tile_codes(const Encoding& e) {
  return e.affine ? TileCodes::kWithOffsets : is_packed(e.dtype) ? TileCodes::kSigned : TileCodes::kWithZeros;
}

// Of a sub-panel with nests as unpack_nested() goes over it.
template <DType kType>
struct NestTileBytes {
  static constexpr int kGroup = nested_group(kType);
  static constexpr Encoding kBytes = tile_bytes({kType, kGroup, is_nested_affine(kType)});
  uint8_t* out;
  Codes zero;
  ALBIREO_INLINE void begin(const NestedHead& head) {
    store((float*)out, head.scale);
    if constexpr (kBytes.affine) store((float*)(out + kWord), head.other);
    out += head_bytes(kBytes);
  }
  ALBIREO_INLINE void add(Codes codes) {
    store_codes(out, kBytes.affine ? codes : less(codes, zero));
    out += kWord;
  }
};

template <DType kType>
inline void unpack_tile_nests(DType type, int64_t k, const uint8_t* b, uint8_t* out) {
  unpack_nested<kType>(type, k, b, NestTileBytes<kType>{out, four_times(iset1(nested_zero(type)))});
}

inline void unpack_tile_nibbles(const Encoding& e, int64_t k, const uint8_t* b, uint8_t* out) {
  const int64_t groups = num_groups(e, k), words = group_words(e), head = head_bytes(e);
  for (int64_t g = 0; g < groups; g++, b += group_bytes(e), out += head + 2 * words * kWord) {
    const VI first = iload((const int32_t*)b);
    const Codes zero = e.affine ? four_times(izero()) : four_times(low_byte(first));
    if (e.affine) istore((int32_t*)out, first), istore((int32_t*)(out + kWord), iload((const int32_t*)(b + kWord)));
    else store((float*)out, without_low_byte(first));
    for (int64_t s = 0; s < words; s++) {
      const Codes pair = load_codes(b + head + s * kWord);
      store_codes(out + head + 2 * s * kWord, less(low_nibbles(pair), zero));
      store_codes(out + head + (2 * s + 1) * kWord, less(high_nibbles(pair), zero));
    }
  }
}

inline void unpack_tile_fp4(const Encoding& e, int64_t k, const uint8_t* b, uint8_t* out) {
  const int64_t groups = num_groups(e, k), words = group_words(e);
  const uint8_t* codes = b + gamma_bytes(e, k);
  const Codes zero = four_times(iset1(kE2M1Zero));
  for (int64_t g = 0; g < groups; g++, out += (1 + 2 * words) * kWord) {
    store((float*)out, scale_of_group(e, b, g));
    for (int64_t s = 0; s < words; s++) {
      const Codes pair = load_codes(codes + (g * words + s) * kWord);
      store_codes(out + (2 * s + 1) * kWord, less(looked_up(kTwiceE2M1, low_nibbles(pair)), zero));
      store_codes(out + (2 * s + 2) * kWord, less(looked_up(kTwiceE2M1, high_nibbles(pair)), zero));
    }
  }
}

// A panel of groups in few bits as tile_bytes().
inline void unpack_tile_panel(const Encoding& e, int64_t k, const uint8_t* from, uint8_t* to) {
  for (int64_t j = 0; j < kSubPanels; j++) {
    const uint8_t* b = from + j * sub_panel_bytes(e, k);
    uint8_t* out = to + j * sub_panel_bytes(tile_bytes(e), k);
    if (e.dtype == DType::kInt4Group) unpack_tile_nibbles(e, k, b, out);
    else if (e.dtype == DType::kFp4) unpack_tile_fp4(e, k, b, out);
    else for_nest_type(e.dtype, [&](auto type) { unpack_tile_nests<type()>(e.dtype, k, b, out); });
  }
}

}  // namespace
