// The places of the n largest of count numbers, ascending; of equals the first. n < count.
#pragma once
#include <cstdint>

namespace albireo {
// Four passes over the numbers, whatever they are. NaN is above all numbers.
void places_of_best(const float* numbers, int64_t count, int64_t n, int32_t* places);
}  // namespace albireo
