#include "kernels/choose_keys/best.h"

#include <cstring>

namespace albireo {
namespace {

constexpr int kShifts[] = {21, 10, 0}, kBits[] = {11, 11, 10};  // digits of a number's order, the first first

// Its place in the order of all float32, as a whole number.
uint32_t order_of(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof(bits));
  return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

}  // namespace

void places_of_best(const float* numbers, int64_t count, int64_t n, int32_t* places) {
  uint32_t least = 0;  // of those taken, digit by digit
  int64_t left = n;    // to be taken of those whose digits are these
  for (int digit = 0; digit < 3; digit++) {
    int64_t counts[1 << 11] = {};
    const int shift = kShifts[digit], known = shift + kBits[digit];
    for (int64_t i = 0; i < count; i++) {
      const uint64_t order = order_of(numbers[i]);
      if (order >> known == (uint64_t)least >> known) counts[order >> shift & ((1u << kBits[digit]) - 1)]++;
    }
    uint32_t value = (1u << kBits[digit]) - 1;
    for (; counts[value] < left; value--) left -= counts[value];
    least |= value << shift;
  }
  for (int64_t i = 0; i < count; i++) {
    const uint32_t order = order_of(numbers[i]);
    if (order > least || (order == least && left-- > 0)) *places++ = (int32_t)i;
  }
}

}  // namespace albireo
