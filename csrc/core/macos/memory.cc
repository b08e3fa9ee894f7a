#include "albireo/system.h"

namespace albireo {

void wish_huge_pages(void*, int64_t) {}  // there are none

bool interleave_pages(void*, int64_t, const std::vector<int>&) { return false; }

}  // namespace albireo
