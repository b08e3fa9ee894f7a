// Every kernel family: those of a fused program in the order in which a layer uses them, then single ops.
#include <cstring>

#include "kernels/adapter/adapter.h"
#include "kernels/add_parts/add_parts.h"
#include "kernels/all_reduce/all_reduce.h"
#include "kernels/attention/attention.h"
#include "kernels/balance/balance.h"
#include "kernels/causal_conv/causal_conv.h"
#include "kernels/choose_keys/choose_keys.h"
#include "kernels/combine/combine.h"
#include "kernels/depthwise_conv/depthwise_conv.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/embed/embed.h"
#include "kernels/expert_linear/expert_linear.h"
#include "kernels/gate_rows/gate_rows.h"
#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "kernels/gather/gather.h"
#include "kernels/given/given.h"
#include "kernels/head_linear/head_linear.h"
#include "kernels/head_norm/head_norm.h"
#include "kernels/head_top/head_top.h"
#include "kernels/join_heads/join_heads.h"
#include "kernels/join_sums/join_sums.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/norm.h"
#include "kernels/pool_rows/pool_rows.h"
#include "kernels/qkv_rope_kv/qkv_rope_kv.h"
#include "kernels/rope/rope.h"
#include "kernels/route/route.h"
#include "kernels/row_map/row_map.h"
#include "kernels/selective_scan/selective_scan.h"
#include "kernels/selective_state/selective_state.h"
#include "kernels/slice/slice.h"
#include "kernels/top/top.h"

namespace albireo {
namespace {
const Family* const kFamilies[] = {
    &kEmbed, &kNorm, &kQkvRopeKv, &kAttention, &kGather, &kLinear, &kAllReduce, &kHeadTop,
    // layers with experts, or that keep a state
    &kRoute, &kExpertLinear, &kCombine, &kGateRows, &kCausalConv, &kGatedDeltaRule, &kSelectiveState, &kSelectiveScan,
    // linears with adapters, and layers whose heads share a latent, or choose what they see
    &kAdapter, &kHeadLinear, &kJoinHeads, &kChooseKeys,
    // residual streams side by side, and rows looked at as a whole
    &kAddParts, &kRowMap, &kBalance,
    // caches whose entries are of several positions, beside others
    &kPoolRows, &kJoinSums,
    // rows made of those around them
    &kDepthwiseConv,
    // rows that come with the step
    &kGiven, &kAddGiven,
    // what is left of these where a fusion is switched off
    &kHeadNorm, &kRope, &kKvWrite, &kElementwise, &kSlice, &kTop};
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
