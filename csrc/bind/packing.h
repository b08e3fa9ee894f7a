#pragma once
// Weights, row by row as they lie in files -> as kernels read them.
#include <nanobind/nanobind.h>

namespace albireo {

// Adds pack, pack_rounded and pack_encoded to the module, and what the results take.
void define_packing(nanobind::module_& m);

}  // namespace albireo
