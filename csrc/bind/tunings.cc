#include "bind/tunings.h"

#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "albireo/kernel.h"

namespace nb = nanobind;

namespace albireo {
namespace {

// The numbers of Tuning by name, with the least and the most each may be.
struct TuningField {
  const char* name;
  int64_t Tuning::* member;
  int64_t least, most;
};
constexpr TuningField kTuningFields[] = {
    {"tall_rows", &Tuning::tall_rows, 0, kTallRows},   {"fetch_bytes", &Tuning::fetch_bytes, 0, 1 << 20},
    {"block_steps", &Tuning::block_steps, 1, 1 << 20}, {"slab_rows", &Tuning::slab_rows, kRowChunk, 1 << 20},
    {"claims", &Tuning::claims, 1, 1 << 10},           {"one_queue", &Tuning::one_queue, 0, 1},
};

// Every field by name; none but these.
Tuning tuning_of(const nb::dict& d) {
  Tuning t;
  size_t known = 0;
  for (const TuningField& f : kTuningFields) {
    if (!d.contains(f.name)) throw std::invalid_argument(std::string("tuning lacks ") + f.name);
    const int64_t value = nb::cast<int64_t>(d[f.name]);
    if (value < f.least || value > f.most)
      throw std::invalid_argument(std::string("tuning ") + f.name + "=" + std::to_string(value) + " is not within " +
                                  std::to_string(f.least) + " to " + std::to_string(f.most));
    t.*f.member = value;
    known++;
  }
  if (d.size() != known) throw std::invalid_argument("tuning has an unknown field");
  if (t.slab_rows % kRowChunk) throw std::invalid_argument("tuning slab_rows is no multiple of a chunk of rows");
  return t;
}

}  // namespace

nb::dict tuning_dict(const Tuning& t) {
  nb::dict d;
  for (const TuningField& f : kTuningFields) d[f.name] = t.*f.member;
  return d;
}

std::array<Tuning, kNumBuckets> tunings_of(const nb::list& tunings) {
  std::array<Tuning, kNumBuckets> tuned{};
  if (tunings.size() != 0 && tunings.size() != tuned.size())
    throw std::invalid_argument("a call has one tuning a bucket, or none");
  for (size_t i = 0; i < tunings.size(); i++) tuned[i] = tuning_of(nb::cast<nb::dict>(tunings[i]));
  return tuned;
}

}  // namespace albireo
