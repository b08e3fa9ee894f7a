#include "kernels/embed/embed.h"

namespace albireo {
namespace {
int64_t items(const Args&, const Step& s) { return s.T; }
int64_t scratch_bytes(const Args&) { return 0; }

constexpr Variant kVariants[] = {ALBIREO_AT_EVERY_LEVEL(embed)};
}  // namespace
const Family kEmbed{"embed", items, scratch_bytes, kVariants};
}  // namespace albireo
