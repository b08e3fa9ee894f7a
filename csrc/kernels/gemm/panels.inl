// The panels of one ISA level, and which of them a weight has. Include after a vec_<isa>.h and math.inl.
#include <new>

#include "kernels/gemm/gemm.inl"
#include "kernels/gemm/panels.h"
// clang-format off: what multiplies comes first
#ifndef ALBIREO_TILES
#include "kernels/gemm/fp8.inl"
#endif
#include "kernels/gemm/integers.inl"
#ifdef ALBIREO_TILES
#include "kernels/gemm/fp8_tiles.inl"
#endif
// clang-format on

namespace {

// Of a weight that is numbers.
template <class W>
struct NumberPanels final : Panels {
  using A = typename W::A;
  const Args& a;
  Activations<W> x;
  NumberPanels(const Args& a, Scratch& scratch, char* memory)
      : a(a), x{a.x, a.x_dtype, a.k, x_stride(a, a.k), scratch, (A*)memory} {}
  int64_t steps() const override { return ceil_div(a.k, W::kStep); }
  void part(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, float* c, int64_t ldc) override {
    const typename W::B* weight = (const typename W::B*)a.weight + panel * panel_elements<W>(a.k);
    panel_part<W>(x, m, rows, weight, steps(), first, count, c, ldc, a.tuning);
  }
  void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) override {
    part(m, rows, panel, 0, steps(), c, ldc);
  }
};

template <class P>
Panels* made(const Args& a, Scratch& scratch, char* memory, void* room) {
  static_assert(sizeof(P) <= kPanelsBytes && alignof(P) <= 64);
  return new (room) P(a, scratch, memory);
}

ALBIREO_INLINE Panels* panels_of(const Args& a, Scratch& scratch, char* memory, void* room) {
  switch (a.w_dtype) {
#if !defined(ALBIREO_HAVE_BYTE_DOT) && !defined(ALBIREO_TILES)
    case DType::kF32: return made<NumberPanels<WeightF32>>(a, scratch, memory, room);
    case DType::kF16: return made<NumberPanels<WeightF16>>(a, scratch, memory, room);
    case DType::kBF16: return made<NumberPanels<PairPolicy>>(a, scratch, memory, room);
    case DType::kFp8: return made<Fp8Panels>(a, scratch, memory, room);
#endif
#ifdef ALBIREO_TILES
    case DType::kBF16: return made<TiledPanels<ALBIREO_TILES>>(a, scratch, memory, room);
    case DType::kFp8: return made<TiledFp8Panels<ALBIREO_TILES>>(a, scratch, memory, room);
#endif
#ifndef ALBIREO_HAVE_BF16_DOT
    case DType::kInt8: return made<EncodedPanels<DType::kInt8>>(a, scratch, memory, room);
    case DType::kInt8Group: return made<EncodedPanels<DType::kInt8Group>>(a, scratch, memory, room);
    case DType::kInt4Group: return made<EncodedPanels<DType::kInt4Group>>(a, scratch, memory, room);
    case DType::kInt4Progressive: return made<EncodedPanels<DType::kInt4Progressive>>(a, scratch, memory, room);
    case DType::kFp4: return made<EncodedPanels<DType::kFp4>>(a, scratch, memory, room);
    case DType::kQ2K: return made<EncodedPanels<DType::kQ2K>>(a, scratch, memory, room);
    case DType::kQ3K: return made<EncodedPanels<DType::kQ3K>>(a, scratch, memory, room);
    case DType::kQ4K: return made<EncodedPanels<DType::kQ4K>>(a, scratch, memory, room);
    case DType::kQ5K: return made<EncodedPanels<DType::kQ5K>>(a, scratch, memory, room);
    case DType::kQ6K: return made<EncodedPanels<DType::kQ6K>>(a, scratch, memory, room);
    case DType::kIQ4XS: return made<EncodedPanels<DType::kIQ4XS>>(a, scratch, memory, room);
    case DType::kIQ3XXS:
    case DType::kIQ3S: return made<EncodedPanels<DType::kIQ3XXS>>(a, scratch, memory, room);
    case DType::kIQ2XXS:
    case DType::kIQ1S: return made<EncodedPanels<DType::kIQ2XXS>>(a, scratch, memory, room);
    case DType::kIQ2S:
    case DType::kIQ1M: return made<EncodedPanels<DType::kIQ2S>>(a, scratch, memory, room);
#endif
    default: return nullptr;  // of no variant that is chosen for such a weight
  }
}

}  // namespace
