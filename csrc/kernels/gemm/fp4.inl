// What the bytes of kFp4 stand for. Include after a vec_<isa>.h.
#include "albireo/encoded.h"

namespace {
using namespace albireo;

// The scales of group g of a sub-panel at b.
ALBIREO_INLINE V scale_of_group(const Encoding& e, const uint8_t* b, int64_t g) {
  const uint8_t* codes = b + g * gamma_step(e);
  return has_e4m3_scales(e) ? load_e4m3(codes) : load_e8m0(codes);
}

}  // namespace
