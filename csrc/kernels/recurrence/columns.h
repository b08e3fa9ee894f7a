// What recurrences over states of heads share: of a head's state [K, V] a column of V depends on nothing but itself, so
// an item is kStateColumns of one head of one sequence. They stay in the first-level cache for all its rows.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr int64_t kStateColumns = 32;  // of an item
constexpr int64_t kStateRows = 16;     // rows whose numbers of a head are made together
constexpr int64_t column_blocks(const Args& a) { return ceil_div(a.v_dim, kStateColumns); }
}  // namespace albireo
