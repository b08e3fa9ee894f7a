#include "bind/packing.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "albireo/encoded.h"
#include "albireo/tokens.h"
#include "bind/names.h"
#include "bind/share_out.h"
#include "kernels/pack/pack.h"
#include "kernels/pack/pack_blocks.h"
#include "kernels/pack/pack_encoded.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace albireo {
namespace {

using Addresses = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Types = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void pack(ThreadPool& pool, const Addresses& rows, int64_t k, const std::string& from, const std::string& to,
          uint64_t out, bool panels, bool wide) {
  const DType source = dtype_of(from), target = dtype_of(to);
  const int64_t count = (int64_t)rows.size();
  if (panels && count % kPanel) throw std::invalid_argument("rows must fill whole panels");
  const int64_t items = panels ? count / kPanel : count, claim = panels ? 1 : 64;
  const void* const* r = (const void* const*)rows.data();
  nb::gil_scoped_release unlocked;
  share_out(pool, items, claim, [&](int64_t begin, int64_t end) {
    if (panels) pack_panels(r, k, source, target, wide, (char*)out, begin, end);
    else pack_rows(r, k, source, target, (char*)out, begin, end);
  });
}

int64_t panels_of(const Addresses& rows, int64_t k) {
  if (rows.size() % kPanel) throw std::invalid_argument("rows must fill whole panels");
  if (k > kMaxIntegerDepth) throw std::invalid_argument("rows of more than 65,536 do not fit in 32-bit sums");
  return (int64_t)rows.size() / kPanel;
}

// work(begin, end) over all panels gives the first of its rows with a number that is not finite, or -1: the first of
// all.
template <class Work>
int64_t first_odd_row(ThreadPool& pool, int64_t panels, Work work) {
  nb::gil_scoped_release unlocked;
  const int64_t none = panels * kPanel;
  std::atomic<int64_t> first{none};
  share_out(pool, panels, 1, [&](int64_t begin, int64_t end) {
    const int64_t odd = work(begin, end);
    for (int64_t seen = first; odd >= 0 && odd < seen && !first.compare_exchange_weak(seen, odd);) {
    }
  });
  return first == none ? -1 : first.load();
}

int64_t pack_rounded_rows(ThreadPool& pool, const Addresses& rows, int64_t k, const std::string& from,
                          const std::string& to, uint64_t out) {
  const DType source = dtype_of(from);
  const Encoding e = encoding_of(to);
  if (e.affine || e.dtype < DType::kInt8 || e.dtype == DType::kInt4Progressive || is_nested(e.dtype))
    throw std::invalid_argument("numbers are not rounded to " + to + " here");
  const void* const* r = (const void* const*)rows.data();
  return first_odd_row(pool, panels_of(rows, k), [&](int64_t begin, int64_t end) {
    return pack_rounded(r, k, source, e, (char*)out, begin, end);
  });
}

int64_t pack_block_rows(ThreadPool& pool, const Addresses& rows, const Types& types, int64_t k, const std::string& to,
                        uint64_t out) {
  const Encoding e = encoding_of(to);
  const int64_t panels = panels_of(rows, k);
  if (types.size() != rows.size()) throw std::invalid_argument("parts of rows disagree in length");
  const uint8_t* const* r = (const uint8_t* const*)rows.data();
  const BlockType* t = (const BlockType*)types.data();
  for (size_t i = 0; i < rows.size(); i++)
    if (r[i] && !is_packed_from(e, t[i], k)) throw std::invalid_argument("such blocks are not packed to " + to);
  return first_odd_row(pool, panels,
                       [&](int64_t begin, int64_t end) { return pack_blocks(r, t, k, e, (char*)out, begin, end); });
}

// Addresses of each row's parts, 0 where it has none.
void pack_encoded_rows(ThreadPool& pool, const Addresses& codes, const Addresses& scale, const Addresses& zero,
                       const Addresses& gamma, const Addresses& offset, int64_t k, const std::string& to,
                       uint64_t out) {
  const Encoding e = encoding_of(to);
  const int64_t panels = panels_of(codes, k);
  for (const Addresses* part : {&scale, &zero, &gamma, &offset})
    if (part->size() != codes.size()) throw std::invalid_argument("parts of rows disagree in length");
  std::vector<EncodedRow> rows(codes.size());
  for (size_t i = 0; i < rows.size(); i++)
    rows[i] = {(const uint8_t*)codes.data()[i], (const float*)scale.data()[i], (const uint8_t*)zero.data()[i],
               (const uint8_t*)gamma.data()[i], (const float*)offset.data()[i]};
  nb::gil_scoped_release unlocked;
  share_out(pool, panels, 1,
            [&](int64_t begin, int64_t end) { pack_encoded(rows.data(), k, e, (char*)out, begin, end); });
}

}  // namespace

void define_packing(nb::module_& m) {
  m.def("panel_bytes", [](const std::string& dtype, int64_t k) {
    const Encoding e = encoding_of(dtype);
    return e.dtype >= DType::kInt8 ? encoded_panel_bytes(e, k) : panel_bytes(e.dtype, k);
  });
  m.def("token_row_bytes", &token_row_bytes, "k"_a, "Bytes of a row of k activations of int8.token.");
  m.def("pack", &pack, "pool"_a, "rows"_a, "k"_a, "source"_a, "target"_a, "out"_a, "panels"_a, "wide"_a = true);
  m.def("pack_rounded", &pack_rounded_rows, "pool"_a, "rows"_a, "k"_a, "source"_a, "target"_a, "out"_a,
        "Returns the first row with a number that is not finite, or -1.");
  m.def(
      "packs_blocks",
      [](int type, int64_t k, const std::string& target) {
        return is_packed_from(encoding_of(target), (BlockType)type, k);
      },
      "type"_a, "k"_a, "target"_a, "Whether rows of k in blocks of one of ggml's types are packed by pack_blocks().");
  m.def("pack_blocks", &pack_block_rows, "pool"_a, "rows"_a, "types"_a, "k"_a, "target"_a, "out"_a,
        "Returns the first row with a scale that is not finite, or -1.");
  m.def("pack_encoded", &pack_encoded_rows, "pool"_a, "codes"_a, "scale"_a, "zero"_a, "gamma"_a, "offset"_a, "k"_a,
        "target"_a, "out"_a);
}

}  // namespace albireo
