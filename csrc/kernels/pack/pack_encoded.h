// Matrices in few bits -> panels, see albireo/encoded.h. Rows come as codes, one a byte, with their scales; or as
// numbers, which are rounded to nearest on the way: the same codes and scales as quantization/rounding.py.
#pragma once
#include <cstdint>
#include <vector>

#include "albireo/encoded.h"

namespace albireo {

// Row n of a matrix; null codes: a row of zeros. Of a group encoding scale, zero, gamma and offset have one entry a
// group; those that the encoding does not have are null. Of a nested one scale and offset have one a nest, float16
// numbers, gamma is the byte of a group's scale, zero that of its offset.
struct EncodedRow {
  const uint8_t* codes = nullptr;
  const float* scale = nullptr;
  const uint8_t* zero = nullptr;
  const uint8_t* gamma = nullptr;
  const float* offset = nullptr;
};

// Panels begin .. end; rows are padded to whole panels.
void pack_encoded(const EncodedRow* rows, int64_t k, const Encoding& e, char* out, int64_t begin, int64_t end);
// The same from rows of numbers: kInt8, kFp8, kFp4, and kInt8Group and kInt4Group that are not affine. Returns the
// first row with a number that is not finite, whose codes mean nothing; -1: there is none.
int64_t pack_rounded(const void* const* rows, int64_t k, DType from, const Encoding& e, char* out, int64_t begin,
                     int64_t end);

}  // namespace albireo
