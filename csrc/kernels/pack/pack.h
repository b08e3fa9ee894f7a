// Checkpoint rows -> panels. Row n of a linear's weight lies at rows[n] (null: zeros), K elements of `from`.
// Panel p of `to` holds rows 64p .. 64p + 63 as four sub-panels of 16, each f32, f16 [K][16] or bf16 [K/2][16][2], K
// padded to even with zeros. wide: AVX-512 may be used. Converting bf16 and f16 to f32 is exact; narrowing rounds to
// nearest even.
#pragma once
#include "albireo/types.h"

namespace albireo {
int64_t panel_bytes(DType to, int64_t k);
void pack_panels(const void* const* rows, int64_t k, DType from, DType to, bool wide, char* out, int64_t begin,
                 int64_t end);
// 64 rows of `words` 32-bit words (null: zeros) into sub-panels [steps][16]; avx512 only
void transpose_words_avx512(const void* const* rows, int64_t words, int64_t steps, uint32_t* out);
// rows copied one after another, converted
void pack_rows(const void* const* rows, int64_t k, DType from, DType to, char* out, int64_t begin, int64_t end);
}  // namespace albireo
