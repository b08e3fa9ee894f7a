// Every kernel family, in the order in which a layer uses them.
#include <cstring>

#include "kernels/all_reduce/all_reduce.h"
#include "kernels/attention/attention.h"
#include "kernels/embed/embed.h"
#include "kernels/gather/gather.h"
#include "kernels/head_top/head_top.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/norm.h"
#include "kernels/qkv_rope_kv/qkv_rope_kv.h"

namespace albireo {
namespace {
const Family* const kFamilies[] = {&kEmbed,  &kNorm,   &kQkvRopeKv, &kAttention,
                                   &kGather, &kLinear, &kAllReduce, &kHeadTop};
}

const Family* find_family(const char* name) {
  for (const Family* f : kFamilies)
    if (!strcmp(f->name, name)) return f;
  return nullptr;
}

const Family* const* families(int64_t* count) {
  *count = sizeof(kFamilies) / sizeof(kFamilies[0]);
  return kFamilies;
}
}  // namespace albireo
