#pragma once
// The names that Python has for types and row counts.
#include <string>

#include "albireo/encoded.h"
#include "albireo/types.h"

namespace albireo {

// Each throws std::invalid_argument for a name that is not known.
DType dtype_of(const std::string& name);
// The type of a weight: a number's, or an encoding by its name, see encodings.py.
Encoding encoding_of(const std::string& name);
// What a KV cache may hold.
DType kv_dtype_of(const std::string& name);
Rows rows_of(const std::string& symbol);

}  // namespace albireo
