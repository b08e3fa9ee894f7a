// out[t, e] = row t of what the step gives at a place: [T, E] float32. E = k; the place is n.
// Reads: out k n out_stride.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
extern const Family kGiven;
}  // namespace albireo
