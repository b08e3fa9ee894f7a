// out[t, e] = table[ids[t], e], widened to float32, and times scale where that is not 0; ids are those of tokens, of
// positions or of token types. A token whose row the step gives (given_rows) has
// that in place of the table's, but where ids are kOfTokensAlone: those of tokens, and no row is given.
// table: plain rows [V, E] of w_dtype, or (packed) the panels of a tied head. E = k.
// Reads: weight out k scale packed ids_of w_dtype.
#pragma once
#include "albireo/kernel.h"

namespace albireo {
constexpr IdsOf kOfTokensAlone = (IdsOf)3;
void embed_scalar(const Args&, const Step&, int64_t, int64_t, Scratch&);
void embed_avx2(const Args&, const Step&, int64_t, int64_t, Scratch&);
void embed_avx512(const Args&, const Step&, int64_t, int64_t, Scratch&);
void embed_neon(const Args&, const Step&, int64_t, int64_t, Scratch&);
extern const Family kEmbed;
}  // namespace albireo
