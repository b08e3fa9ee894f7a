// given: out[t, e] = row t of what the step gives at a place: [T, E] float32. E = k; the place is n.
// add_given: out[t] = x[t] + row given_rows[t] of it, or x[t] where that is -1, or nothing is given.
// Reads: x out k n x_stride out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
extern const Family kGiven;
extern const Family kAddGiven;
}  // namespace albireo
