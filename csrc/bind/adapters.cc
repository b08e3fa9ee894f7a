#include "bind/adapters.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "albireo/adapter.h"
#include "albireo/memory.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace albireo {
namespace {

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Targets = std::vector<std::pair<int64_t, int64_t>>;

int64_t a_floats(const Adapters& d) { return d.slots * d.targets * d.leaves * d.max_rank * a_stride(d); }
int64_t b_floats(const Adapters& d) { return d.slots * d.panels * d.max_rank * kPanel; }
int64_t bytes_of(const Adapters& d) { return (a_floats(d) + b_floats(d) + d.slots * d.targets) * 4; }

Adapters shape_of(const Targets& targets, int64_t slots, int64_t max_rank, int64_t k, bool gated, int64_t leaves) {
  if (targets.empty() || targets.size() > kMaxTargets || slots < 1 || max_rank < 1 || max_rank % kRankBlock ||
      leaves < 1 || k < leaves || k % leaves)
    throw std::invalid_argument("adapters of no shape, or ranks that are no whole blocks");
  Adapters d{};
  d.slots = slots, d.targets = (int64_t)targets.size(), d.max_rank = max_rank;
  d.k = k / leaves, d.leaves = leaves;
  for (size_t p = 0; p < targets.size(); p++) d.first[p] = targets[p].first, d.end[p] = targets[p].second;
  const int64_t columns = targets.back().second;
  d.gate_columns = gated ? columns / 2 : 0;
  d.panels = gated ? ceil_div(columns / 2, kGateUpInterleave) : ceil_div(columns, kPanel);
  return d;
}

// Slots of one linear. Only between steps may one be filled or cleared.
class LinearAdapters {
 public:
  LinearAdapters(const Targets& targets, int64_t slots, int64_t max_rank, int64_t k, bool gated, int64_t leaves)
      : shape_(shape_of(targets, slots, max_rank, k, gated, leaves)), memory_(bytes_of(shape_)) {
    a_ = (float*)memory_.data(), b_ = a_ + a_floats(shape_), ranks_ = (int32_t*)(b_ + b_floats(shape_));
    shape_.a = a_, shape_.b = b_, shape_.ranks = ranks_;
  }

  uint64_t address() const { return (uint64_t)&shape_; }

  void clear(int64_t slot) {
    check(slot, 0);
    for (int64_t p = 0; p < shape_.targets; p++) ranks_[slot * shape_.targets + p] = 0;
  }

  // a [rank, all inputs]; b [columns of the target, rank], times the scale.
  void put(int64_t slot, int64_t target, const Matrix& a, const Matrix& b) {
    check(slot, target);
    const Adapters& d = shape_;
    const int64_t rank = (int64_t)a.shape(0), columns = d.end[target] - d.first[target];
    if (rank > d.max_rank || (int64_t)a.shape(1) != d.leaves * d.k || (int64_t)b.shape(0) != columns ||
        (int64_t)b.shape(1) != rank)
      throw std::invalid_argument("an adapter's matrices do not fit the linear");
    float* to = a_ + (slot * d.targets + target) * d.leaves * d.max_rank * a_stride(d);
    for (int64_t leaf = 0; leaf < d.leaves; leaf++)
      for (int64_t q = 0; q < d.max_rank; q++, to += a_stride(d)) {
        const float* row = a.data() + (q * d.leaves + leaf) * d.k;
        for (int64_t e = 0; e < a_stride(d); e++) to[e] = q < rank && e < d.k ? row[e] : 0.0f;
      }
    float* panels = b_ + slot * d.panels * d.max_rank * kPanel;
    for (int64_t panel = 0; panel < d.panels; panel++)
      for (int64_t j = 0; j < kPanel; j++) {
        const int64_t column = merged_column(d, panel, j) - d.first[target];
        const bool is_beyond = d.gate_columns && j < kGateUpInterleave &&
                               merged_column(d, panel, j) >= d.gate_columns;  // where the panel has zeros
        if (column < 0 || column >= columns || is_beyond) continue;
        for (int64_t q = 0; q < rank; q++) panels[(panel * d.max_rank + q) * kPanel + j] = b.data()[column * rank + q];
      }
    ranks_[slot * d.targets + target] = (int32_t)rank;
  }

 private:
  void check(int64_t slot, int64_t target) const {
    if (slot < 0 || slot >= shape_.slots || target < 0 || target >= shape_.targets)
      throw std::invalid_argument("no such slot or target of adapters");
  }

  Adapters shape_;
  Memory memory_;
  float *a_, *b_;
  int32_t* ranks_;
};

}  // namespace

void define_adapters(nb::module_& m) {
  m.attr("MAX_ADAPTER_TARGETS") = kMaxTargets;
  m.attr("RANK_BLOCK") = kRankBlock;
  m.def(
      "adapter_bytes",
      [](const Targets& targets, int64_t slots, int64_t max_rank, int64_t k, bool gated, int64_t leaves) {
        return bytes_of(shape_of(targets, slots, max_rank, k, gated, leaves));
      },
      "targets"_a, "slots"_a, "max_rank"_a, "k"_a, "gated"_a, "leaves"_a = 1, "Bytes of a LinearAdapters.");
  nb::class_<LinearAdapters>(m, "LinearAdapters")
      .def(nb::init<const Targets&, int64_t, int64_t, int64_t, bool, int64_t>(), "targets"_a, "slots"_a, "max_rank"_a,
           "k"_a, "gated"_a, "leaves"_a = 1)
      .def_prop_ro("address", &LinearAdapters::address)
      .def("clear", &LinearAdapters::clear, "slot"_a)
      .def("put", &LinearAdapters::put, "slot"_a, "target"_a, "a"_a, "b"_a);
}

}  // namespace albireo
