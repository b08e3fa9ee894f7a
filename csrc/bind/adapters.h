#pragma once
// Adapters of low rank, as files have them -> as kernels read them.
#include <nanobind/nanobind.h>

namespace albireo {

// Adds LinearAdapters to the module: the slots of one linear, with their memory.
void define_adapters(nanobind::module_& m);

}  // namespace albireo
