// Rows of ggml's blocks, as they lie in a GGUF file -> panels, see albireo/encoded.h: the same codes and scales as
// quantization/formats/gguf_blocks.py, to the bit.
#pragma once
#include <cstdint>

#include "albireo/encoded.h"

namespace albireo {

// By ggml's own numbers.
enum class BlockType : uint8_t {
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2K = 10,
  kQ3K = 11,
  kQ4K = 12,
  kQ5K = 13,
  kQ6K = 14,
  kIQ4XS = 23,
  kMxfp4 = 39,
};

// Whether rows of k in blocks of a type are packed to an encoding here.
bool is_packed_from(const Encoding& e, BlockType type, int64_t k);

// Panels begin .. end of rows of k, padded to whole panels; null: a row of zeros. types: of each row. Returns the first
// row with a scale that is not finite, whose panel means nothing; -1: there is none.
int64_t pack_blocks(const uint8_t* const* rows, const BlockType* types, int64_t k, const Encoding& e, char* out,
                    int64_t begin, int64_t end);

}  // namespace albireo
