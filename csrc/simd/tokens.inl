// Rows of numbers to rows of 8-bit codes with one scale, see tokens.h. Include after a vec_<isa>.h.
#include <cstring>

#include "albireo/tokens.h"

namespace {

// x: k numbers, readable to a multiple of 16. code = round(x * 127 / largest), ties to even; scale = largest / 127.
// A row with NaN or an infinity has the scale NaN, and so does all that is computed from it.
inline void store_token(const float* x, int64_t k, char* row) {
  V most = zero(), odd = zero();  // odd: NaN once a NaN or an infinity is met
  for (int64_t e = 0; e < k; e += 16) {
    const int64_t n = k - e;
    const V v = n >= 16 ? load(x + e) : load_n(x + e, n);
    most = max(most, max(v, sub(zero(), v)));
    odd = fma(v, zero(), odd);
  }
  const float largest = hmax(most);
  const bool is_odd = sum(odd) != 0.0f || sum(odd) != sum(odd);
  const float factor = 127.0f / largest;
  const bool is_zero = is_odd || !(factor < __builtin_inff());
  const V by = set1(is_zero ? 0.0f : factor);
  int8_t* codes = (int8_t*)row;
  float* tail = (float*)(row + token_codes(k));
  float before = 0.0f;
  tail[0] = is_odd ? __builtin_nanf("") : largest / 127.0f;
  tail[1] = 0.0f;
  for (int64_t e = 0; e < k; e += 16) {
    const int64_t n = k - e;
    V v = zero();
    if (!is_zero) v = round_even(mul(n >= 16 ? load(x + e) : load_n(x + e, n), by));
    store_codes(codes + e, v);
    tail[2 + e / kSumStep] = before += sum(v);  // whole numbers: exact in any order
  }
  const int64_t end = round_up(k, 16);
  memset(codes + end, 0, token_codes(k) - end);
}

}  // namespace
