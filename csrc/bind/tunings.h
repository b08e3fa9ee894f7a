// Numbers of Tuning, as Python has them.
#pragma once

#include <nanobind/nanobind.h>

#include <array>

#include "albireo/tuning.h"

namespace albireo {

nanobind::dict tuning_dict(const Tuning& t);

// None, or one a bucket, each with every field. Throws std::invalid_argument naming what is wrong.
std::array<Tuning, kNumBuckets> tunings_of(const nanobind::list& tunings);

}  // namespace albireo
