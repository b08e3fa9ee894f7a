#include "kernels/sample/rows.inl"

namespace albireo {
const RowPasses kRowsAvx2{maxima, weigh_chunks, weigh, add_chunks, count_above};
}  // namespace albireo
