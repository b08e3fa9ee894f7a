// The scale of a row of numbers that is rounded to whole ones, or to few bits. Include after a vec_<isa>.h.
#pragma once

namespace {

// The scale that takes the largest of n numbers to the largest code: 0 for a row whose numbers are all too small to
// divide by it, NaN for one that holds what is no number. n is a multiple of 16.
ALBIREO_INLINE float row_scale(const float* row, int64_t n, float largest_code) {
  V most = zero(), none = zero();
  for (int64_t e = 0; e < n; e += 16) {
    const V v = load(row + e);
    most = max(most, max(v, sub(zero(), v)));
    none = fma(v, zero(), none);
  }
  const float scale = hmax(most) / largest_code, not_a_number = sum(none);
  if (not_a_number != 0.0f) return not_a_number;
  return scale < 0x1p-126f ? 0.0f : scale;
}

}  // namespace
