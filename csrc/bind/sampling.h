#pragma once
// Rows of logits -> tokens and what is reported of them.
#include <nanobind/nanobind.h>

namespace albireo {

// Adds draw_tokens, kept_tokens and log_rows to the module.
void define_sampling(nanobind::module_& m);

}  // namespace albireo
