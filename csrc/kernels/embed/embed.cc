#include "kernels/embed/embed.h"

namespace albireo {
namespace {
int64_t items(const Args&, const Step& s) { return s.T; }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {
    {"embed", "any", "avx512", embed_avx512},
    {"embed", "any", "avx2", embed_avx2},
    {"embed", "any", "scalar", embed_scalar},
};
}  // namespace
const Family kEmbed{"embed", items, scratch_bytes, kVariants, 3};
}  // namespace albireo
