#include "bind/sampling.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <numeric>
#include <stdexcept>
#include <string>

#include "bind/share_out.h"
#include "kernels/sample/sample.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace albireo {
namespace {

template <class T, int kAxes>
using Array = nb::ndarray<T, nb::ndim<kAxes>, nb::c_contig, nb::device::cpu>;
using Addresses = Array<const uint64_t, 1>;

DrawSettings settings_of(const double* s) { return {s[0], s[1], s[2], s[3], s[4]}; }

constexpr int64_t kWorthSharing = 1 << 17;  // logits: about as long as threads take to wake

// work(row, scratch) for each row, of so many logits in all; on the calling thread where there is no pool, or little.
template <class Work>
void over_rows(ThreadPool* pool, const std::string& level, int64_t rows, int64_t logits, Work work) {
  nb::gil_scoped_release unlocked;
  const auto some = [&](int64_t begin, int64_t end) {
    SampleScratch scratch(level);
    for (int64_t row = begin; row < end; row++) work(row, scratch);
  };
  if (pool && rows > 1 && logits >= kWorthSharing) share_out(*pool, rows, 1, some);
  else some(0, rows);
}

// settings [rows, 6]: peak, temperature, top_k, top_p, min_p, fraction.
void draw_tokens(ThreadPool* pool, const std::string& level, const Addresses& rows,
                 const Array<const int64_t, 1>& sizes, const Array<const double, 2>& settings,
                 const Array<int32_t, 1>& tokens) {
  const int64_t count = (int64_t)rows.size();
  if ((int64_t)sizes.size() != count || (int64_t)settings.shape(0) != count || settings.shape(1) != 6 ||
      (int64_t)tokens.size() != count)
    throw std::invalid_argument("rows, sizes, settings and tokens disagree");
  const int64_t logits = std::accumulate(sizes.data(), sizes.data() + count, int64_t{0});
  over_rows(pool, level, count, logits, [&](int64_t row, SampleScratch& scratch) {
    const double* s = settings.data() + 6 * row;
    tokens.data()[row] =
        (int32_t)draw((const float*)rows.data()[row], sizes.data()[row], settings_of(s), s[5], scratch);
  });
}

// ids, weights [n]: filled up to what is returned.
int64_t kept_tokens(const std::string& level, const Array<const float, 1>& row, const Array<const double, 1>& settings,
                    const Array<int32_t, 1>& ids, const Array<double, 1>& weights) {
  if (settings.size() != 5 || ids.size() != row.size() || weights.size() != row.size())
    throw std::invalid_argument("a row, its settings and room for what is kept disagree");
  SampleScratch scratch(level);
  list_kept(row.data(), (int64_t)row.size(), settings_of(settings.data()), scratch);
  std::copy(scratch.kept.ids.begin(), scratch.kept.ids.end(), ids.data());
  std::copy(scratch.kept.weights.begin(), scratch.kept.weights.end(), weights.data());
  return (int64_t)scratch.kept.ids.size();
}

// Of each row the log of all weights, the ids of the best, and how many are larger than each token named.
void log_rows(ThreadPool* pool, const std::string& level, const Addresses& rows, int64_t n,
              const Array<const double, 1>& peaks, const Array<const int32_t, 2>& named, const Array<double, 1>& totals,
              const Array<int32_t, 2>& best, const Array<int64_t, 2>& above) {
  const int64_t count = (int64_t)rows.size(), num = (int64_t)best.shape(1), each = (int64_t)named.shape(1);
  if ((int64_t)peaks.size() != count || (int64_t)named.shape(0) != count || (int64_t)totals.size() != count ||
      (int64_t)best.shape(0) != count || (int64_t)above.shape(0) != count || (int64_t)above.shape(1) != each || num > n)
    throw std::invalid_argument("rows and what is to be said of them disagree");
  for (size_t i = 0; i < named.size(); i++)
    if (named.data()[i] < 0 || named.data()[i] >= n) throw std::invalid_argument("no such token in a row");
  over_rows(pool, level, count, count * n, [&](int64_t row, SampleScratch& scratch) {
    const float* x = (const float*)rows.data()[row];
    totals.data()[row] = log_total(x, n, peaks.data()[row], scratch);
    if (num > 0) best_of(x, n, num, best.data() + row * num, scratch);
    for (int64_t i = row * each; i < (row + 1) * each; i++)
      above.data()[i] = count_above(x, n, x[named.data()[i]], scratch);
  });
}

}  // namespace

void define_sampling(nb::module_& m) {
  m.def("draw_tokens", &draw_tokens, "pool"_a.none(), "level"_a, "rows"_a, "sizes"_a, "settings"_a, "tokens"_a);
  m.def("kept_tokens", &kept_tokens, "level"_a, "row"_a, "settings"_a, "ids"_a, "weights"_a);
  m.def("log_rows", &log_rows, "pool"_a.none(), "level"_a, "rows"_a, "n"_a, "peaks"_a, "named"_a, "totals"_a, "best"_a,
        "above"_a);
}

}  // namespace albireo
