// albireo._native: thin. Addresses come in as integers and numpy arrays; ownership stays with Python objects, which
// keep what a program points at alive.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <stdexcept>

#include "albireo/amx.h"
#include "albireo/cpu_info.h"
#include "albireo/system.h"
#include "albireo/encoded.h"
#include "albireo/group.h"
#include "albireo/lost_page.h"
#include "albireo/memory.h"
#include "albireo/nodes.h"
#include "albireo/probe.h"
#include "albireo/program.h"
#include "albireo/tokens.h"
#include "bind/adapters.h"
#include "bind/names.h"
#include "bind/packing.h"
#include "bind/sampling.h"
#include "bind/steps.h"
#include "bind/tunings.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace albireo;

namespace {

template <class T>
T get(const nb::dict& d, const char* key, T fallback) {
  return d.contains(key) ? nb::cast<T>(d[key]) : fallback;
}

template <class T>
T* address(const nb::dict& d, const char* key) {
  return (T*)get<uint64_t>(d, key, 0);
}

// Keys are the fields of Args; dtypes by name, addresses as integers. An unknown key is an error.
Args args_of(const nb::dict& d, Program& program) {
  static const char* const kKnown[] = {"x",           "weight",     "bias",          "residual",
                                       "out",         "q_norm",     "k_norm",        "rope",
                                       "kv",          "kv_dtype",   "num_kv_heads",  "head_dim",
                                       "block_size",  "x_dtype",    "w_dtype",       "out_dtype",
                                       "rows",        "act",        "gather",        "packed",
                                       "n",           "k",          "num_heads",     "window",
                                       "eps",         "scale",      "softcap",       "barrier",
                                       "x_stride",    "out_stride", "chunks",        "parts",
                                       "y",           "is_private", "v_weight",      "v_bias",
                                       "v_dtype",     "ids",        "weights",       "top_k",
                                       "num_experts", "most_pairs", "of_pairs",      "renormalize",
                                       "adapters",    "low",        "low_stride",    "centered",
                                       "ids_of",      "sigmoid",    "num_groups",    "kept_groups",
                                       "group_best",  "sinks",      "state",         "state_size",
                                       "gates",       "a_log",      "dt_bias",       "state_slots",
                                       "k_dim",       "v_dim",      "num_k_heads",   "value_dim",
                                       "has_values",  "y_stride",   "kv_group",      "gated",
                                       "dt",          "skip",       "dt_least",      "dt_most",
                                       "both_ways",   "distances",  "num_distances", "first_key",
                                       "num_keys",    "margin",     "slopes",        "from_rows",
                                       "from_keys",   "columns",    "num_columns",   "reach",
                                       "row_stride",  "key_stride", "in_chunks",     "result_dim",
                                       "every",       "sums",       "side_by_side",  "kv_stride"};
  for (auto item : d) {
    const std::string key = nb::cast<std::string>(item.first);
    bool known = false;
    for (const char* k : kKnown) known |= key == k;
    if (!known) throw std::invalid_argument("unknown kernel argument " + key);
  }
  Args a;
  a.x = address<const void>(d, "x");
  a.y = address<const void>(d, "y");
  a.weight = address<const void>(d, "weight");
  a.bias = address<const float>(d, "bias");
  a.v_weight = address<const void>(d, "v_weight");
  a.v_bias = address<const float>(d, "v_bias");
  a.residual = address<const float>(d, "residual");
  a.out = address<void>(d, "out");
  a.q_norm = address<const float>(d, "q_norm");
  a.k_norm = address<const float>(d, "k_norm");
  a.rope = address<const float>(d, "rope");
  a.sinks = address<const float>(d, "sinks");
  a.distances = address<const float>(d, "distances");
  a.num_distances = get<int64_t>(d, "num_distances", 0);
  if (a.distances && (a.num_distances < 1 || a.num_distances % 2 == 0 || get<float>(d, "softcap", 0.0f) > 0))
    throw std::invalid_argument("distances are an odd number, and scores that they are added to are not capped");
  a.slopes = address<const float>(d, "slopes");
  if (a.slopes && (a.distances || get<float>(d, "softcap", 0.0f) > 0 || get<int32_t>(d, "both_ways", 0) > 0))
    throw std::invalid_argument("slopes are of causal rows, whose scores are not capped and have nothing else added");
  a.from_rows = address<const float>(d, "from_rows");
  a.from_keys = address<const float>(d, "from_keys");
  a.columns = address<const int32_t>(d, "columns");
  a.num_columns = get<int64_t>(d, "num_columns", 0);
  a.reach = get<int64_t>(d, "reach", 0);
  a.row_stride = get<int64_t>(d, "row_stride", a.num_columns * get<int64_t>(d, "num_heads", 0));
  a.key_stride = get<int64_t>(d, "key_stride", a.num_columns * get<int64_t>(d, "num_heads", 0));
  const bool is_by_columns = a.columns && a.from_rows && a.num_columns > 0 && a.reach > 0;
  if (!is_by_columns && (a.columns || a.from_rows || a.from_keys))
    throw std::invalid_argument("what rows, and maybe positions, add by distance comes with its columns");
  if (a.columns && (a.distances || a.slopes || (a.from_keys && get<int32_t>(d, "both_ways", 0) < 1)))
    throw std::invalid_argument("columns are all that is added to scores, those of keys in rows that see both ways");
  a.state = address<float>(d, "state");
  a.gates = address<const float>(d, "gates");
  a.a_log = address<const float>(d, "a_log");
  a.dt_bias = address<const float>(d, "dt_bias");
  a.dt = address<const float>(d, "dt");
  a.skip = address<const float>(d, "skip");
  a.dt_least = get<float>(d, "dt_least", 0.0f);
  a.dt_most = get<float>(d, "dt_most", std::numeric_limits<float>::infinity());
  a.state_size = get<int64_t>(d, "state_size", 0);
  a.state_slots = get<int64_t>(d, "state_slots", 0);
  a.num_k_heads = get<int64_t>(d, "num_k_heads", 0);
  a.k_dim = get<int64_t>(d, "k_dim", 0);
  a.v_dim = get<int64_t>(d, "v_dim", 0);
  a.kv = address<char>(d, "kv");
  a.kv_group = get<int64_t>(d, "kv_group", 0);
  if (a.kv_group < 0) throw std::invalid_argument("kv_group counts from 0");
  a.adapters = address<const Adapters>(d, "adapters");
  a.low = address<const float>(d, "low");
  a.low_stride = get<int64_t>(d, "low_stride", 0);
  a.top = program.top();
  const int64_t head_dim = get<int64_t>(d, "head_dim", 0);
  a.kv_shape = {kv_dtype_of(get<std::string>(d, "kv_dtype", "float32")),
                get<int64_t>(d, "num_kv_heads", 0),
                head_dim,
                round_up(head_dim, 16),
                get<int64_t>(d, "block_size", 16),
                get<bool>(d, "has_values", true),
                get<int64_t>(d, "every", 1),
                get<int64_t>(d, "kv_stride", 0)};
  if (a.kv_shape.stride && a.kv_shape.stride < block_bytes(a.kv_shape))
    throw std::invalid_argument("a block does not end before the next one of its layer");
  if (!a.kv_shape.has_values && is_code(a.kv_shape.dtype))
    throw std::invalid_argument("a KV cache of codes has values of its own");
  const int64_t every = a.kv_shape.every;
  if (every < 1 || (every & (every - 1)) || (every > 1 && a.kv_shape.has_values))
    throw std::invalid_argument("entries are of 1, 2, 4, ... positions, and of several they are keys alone");
  a.value_dim = get<int64_t>(d, "value_dim", 0);
  if (a.value_dim < 0 || a.value_dim > head_dim || (a.value_dim > 0 && a.kv_shape.has_values))
    throw std::invalid_argument("values are channels of keys where the cache has none of its own, and only there");
  a.result_dim = get<int64_t>(d, "result_dim", 0);
  if (a.result_dim < 0 || a.result_dim > head_dim || (a.result_dim > 0 && a.value_dim > 0))
    throw std::invalid_argument("result_dim must be a number of channels of values that are stored");
  a.sums = get<int32_t>(d, "sums", 0);
  if (a.sums && (a.value_dim == 0 || a.sinks))
    throw std::invalid_argument("sums are of values that are channels of keys, and without sinks");
  a.side_by_side = get<int32_t>(d, "side_by_side", 0);
  a.x_dtype = dtype_of(get<std::string>(d, "x_dtype", "float32"));
  const Encoding weight = encoding_of(get<std::string>(d, "w_dtype", "float32"));
  a.w_dtype = weight.dtype, a.group = weight.group, a.affine = weight.affine;
  const Encoding v_weight = encoding_of(get<std::string>(d, "v_dtype", "float32"));
  a.v_dtype = v_weight.dtype, a.v_group = v_weight.group, a.v_affine = v_weight.affine;
  a.out_dtype = dtype_of(get<std::string>(d, "out_dtype", "float32"));
  a.rows = rows_of(get<std::string>(d, "rows", "T"));
  a.act = get<int32_t>(d, "act", 0);
  a.gather = (Gather)get<int32_t>(d, "gather", 0);
  a.centered = get<int32_t>(d, "centered", 0);
  a.ids_of = (IdsOf)get<int32_t>(d, "ids_of", 0);
  a.both_ways = get<int32_t>(d, "both_ways", 0);
  a.packed = get<int32_t>(d, "packed", 0);
  a.is_private = get<int32_t>(d, "is_private", 0);
  a.gated = get<int32_t>(d, "gated", 0);
  a.n = get<int64_t>(d, "n", 0);
  a.k = get<int64_t>(d, "k", 0);
  a.num_heads = get<int64_t>(d, "num_heads", 0);
  a.window = get<int64_t>(d, "window", 0);
  a.in_chunks = get<int32_t>(d, "in_chunks", 0);
  if (every > 1 && (a.window > 0 || a.both_ways || a.distances || a.slopes || a.columns))
    throw std::invalid_argument("entries of several positions have no position that a row is told by");
  if (a.in_chunks && (a.window <= 0 || a.distances || a.slopes || a.both_ways > 0 || get<int64_t>(d, "first_key", 0)))
    throw std::invalid_argument("attention in chunks needs their length, and nothing else that rows see by");
  a.first_key = get<int64_t>(d, "first_key", 0);
  a.num_keys = get<int64_t>(d, "num_keys", 0);
  a.x_stride = get<int64_t>(d, "x_stride", 0);
  a.y_stride = get<int64_t>(d, "y_stride", 0);
  a.out_stride = get<int64_t>(d, "out_stride", 0);
  a.chunks = get<int64_t>(d, "chunks", 1);
  if (a.chunks < 1 || a.chunks > kMaxRanks || (a.chunks & (a.chunks - 1)) || (a.chunks > 1 && a.k % (2 * a.chunks)))
    throw std::invalid_argument("chunks must be 1, 2, 4 or 8 and cut k into whole pairs");
  const auto parts = get<std::vector<uint64_t>>(d, "parts", {});
  a.ranks = (int64_t)parts.size();
  if (a.ranks > kMaxRanks || (a.ranks & (a.ranks - 1)) || a.ranks == 1)
    throw std::invalid_argument("all_reduce adds the parts of 2, 4 or 8 ranks");
  for (int64_t i = 0; i < a.ranks; i++) a.parts[i] = (const float*)parts[i];
  a.ids = address<int32_t>(d, "ids");
  a.pair_weights = address<float>(d, "weights");
  a.top_k = get<int64_t>(d, "top_k", 0);
  a.num_experts = get<int64_t>(d, "num_experts", 0);
  a.most_pairs = get<int64_t>(d, "most_pairs", 0);
  a.of_pairs = get<int32_t>(d, "of_pairs", 0);
  a.renormalize = get<int32_t>(d, "renormalize", 0);
  a.sigmoid = get<int32_t>(d, "sigmoid", 0);
  a.num_groups = get<int64_t>(d, "num_groups", 0);
  a.kept_groups = get<int64_t>(d, "kept_groups", 0);
  a.group_best = get<int64_t>(d, "group_best", 0);
  a.eps = get<float>(d, "eps", 0.0f);
  a.margin = get<float>(d, "margin", 0.0f);
  a.scale = get<float>(d, "scale", 0.0f);
  a.softcap = get<float>(d, "softcap", 0.0f);
  return a;
}

const Family* family_of(const std::string& name) {
  const Family* family = find_family(name.c_str());
  if (!family) throw std::invalid_argument("unknown kernel family " + name);
  return family;
}

void add_call(Program& program, const std::string& family_name, const std::string& isa, const std::string& dtype,
              const nb::dict& args, const nb::list& tunings) {
  const Family* family = family_of(family_name);
  const std::array<Tuning, kNumBuckets> tuned = tunings_of(tunings);
  isa_levels();  // asks for tile registers: without that permission the first kernel of theirs would end the process
  for (int64_t i = 0; i < family->num_variants; i++) {
    const Variant& v = family->variants[i];
    const bool is_whole = !strcmp(v.dtype, "integers") && is_integer(encoding_of(dtype).dtype);
    const bool is_fp8 = !strcmp(v.dtype, "fp8") && encoding_of(dtype).dtype == DType::kFp8;
    const bool fits = !strcmp(v.dtype, "any") || dtype == v.dtype || is_whole || is_fp8;
    if (isa == v.isa && fits)
      return program.add(family, v.run, args_of(args, program), get<int32_t>(args, "barrier", 1) != 0, tuned);
  }
  throw std::invalid_argument("family " + family_name + " has no variant for " + dtype + " at level " + isa);
}

nb::list kernel_list() {
  nb::list out;
  int64_t count;
  const Family* const* all = families(&count);
  for (int64_t f = 0; f < count; f++)
    for (int64_t i = 0; i < all[f]->num_variants; i++) {
      const Variant& v = all[f]->variants[i];
      out.append(nb::make_tuple(v.family, v.dtype, v.isa));
    }
  return out;
}

void run_program(Program& program, const Ints& token_ids, const Ints& positions, const Ints& slots,
                 const Ints& query_start, const Ints& context_len, const Ints& block_table, const Ints& logit_rows,
                 const Ints& top_rows, const Ints& top_counts, TopIds top_ids, TopValues top_values,
                 const std::optional<Ints>& adapter_slots, const std::optional<Ints>& state_slots,
                 const std::optional<Ints>& snapshot_slots, const std::optional<Ints>& snapshot_rows,
                 const std::optional<Ints>& token_types, const std::vector<Rows2D>& given,
                 const std::optional<Ints>& given_rows, const std::optional<Rows2D>& rope_rows,
                 const std::optional<Ints>& row_ends, const std::optional<Ints>& rope_positions) {
  Step s = step_of(token_ids, positions, slots, query_start, context_len, block_table, logit_rows, top_rows, top_counts,
                   program.top()->max_rows());
  check_room(s, top_ids, top_values);
  check_adapters(program, adapter_slots, s.T);
  keep(program, s, state_slots, snapshot_slots, snapshot_rows);
  if (token_types) {
    if (length(*token_types) != s.T) throw std::invalid_argument("step arrays disagree in length");
    s.token_types = token_types->data();
  }
  give(program, s, given, given_rows, rope_rows);
  if (rope_positions) {
    if (length(*rope_positions) != s.T) throw std::invalid_argument("step arrays disagree in length");
    s.rope_positions = rope_positions->data();
  }
  if (row_ends) {
    check_ends(s, *row_ends);
    s.row_ends = row_ends->data();
  }
  if (adapter_slots) s.adapter_slots = adapter_slots->data();
  nb::gil_scoped_release unlocked;
  program.run(s, top_ids.data(), top_values.data());
}

void run_group(Group& group, const Ints& token_ids, const Ints& positions, const Ints& slots, const Ints& query_start,
               const Ints& context_len, const Ints& block_table, const Ints& logit_rows, const Ints& top_rows,
               const Ints& top_counts, const std::vector<TopIds>& top_ids, const std::vector<TopValues>& top_values,
               const std::optional<Ints>& adapter_slots, const std::optional<Ints>& state_slots,
               const std::optional<Ints>& snapshot_slots, const std::optional<Ints>& snapshot_rows) {
  Step s = step_of(token_ids, positions, slots, query_start, context_len, block_table, logit_rows, top_rows, top_counts,
                   group.max_top_rows());
  if ((int64_t)top_ids.size() != group.size() || (int64_t)top_values.size() != group.size())
    throw std::invalid_argument("room for the best logits is needed for each rank");
  check_adapters(group.first(), adapter_slots, s.T);
  if (adapter_slots) s.adapter_slots = adapter_slots->data();
  keep(group.first(), s, state_slots, snapshot_slots, snapshot_rows);
  std::vector<int32_t*> ids;
  std::vector<float*> values;
  for (size_t i = 0; i < top_ids.size(); i++) {
    check_room(s, top_ids[i], top_values[i]);
    ids.push_back(top_ids[i].data()), values.push_back(top_values[i].data());
  }
  nb::gil_scoped_release unlocked;
  group.run(s, ids, values);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Native CPU core of albireo: memory, threads, kernels and the program runner.";
  nb::set_leak_warnings(false);
  m.attr("TOP_MOST") = kTopMost;
  m.attr("FEW_ROWS") = kFewRows;
  m.attr("BUCKET_ROWS") = nb::cast(std::vector<int64_t>(std::begin(kBucketRows), std::end(kBucketRows)));
  m.def("isa_levels", &isa_levels);
  m.def("known_levels", &known_levels);
  m.def("refused_levels", &refused_levels);
  m.def("amx_refusal", [] { return amx_refusal(true); }, "What a processor with AMX would be told; empty: it is on.");
  m.def("first_difference", &first_difference, "level"_a, "trusted"_a);
  m.def("attention_difference", &attention_difference, "level"_a, "trusted"_a, "bound"_a = kAttentionBound);
  m.def("usable_cpus", &usable_cpus);
  m.def("name_lost_pages", &name_lost_pages);
  m.def("kernels", &kernel_list, "(family, weight dtype, isa level) of every variant, in order of preference.");
  m.def("default_tuning", [] { return tuning_dict({}); }, "What a call without a tuning of its own runs with.");
  m.def("revision", [](const std::string& family) { return family_of(family)->revision; });
  m.def(
      "block_bytes",
      [](const std::string& dtype, int64_t num_kv_heads, int64_t head_dim, int64_t block_size, bool has_values,
         int64_t every) {
        const int64_t padded = round_up(head_dim, 16);
        return block_bytes({kv_dtype_of(dtype), num_kv_heads, head_dim, padded, block_size, has_values, every, 0});
      },
      "dtype"_a, "num_kv_heads"_a, "head_dim"_a, "block_size"_a, "has_values"_a, "every"_a = 1);
  define_packing(m);
  define_adapters(m);
  define_sampling(m);
  m.def("copy", [](uint64_t to, uint64_t from, int64_t bytes) { memmove((void*)to, (const void*)from, bytes); });
  m.def("probe_read", [](ThreadPool& pool, const Memory& memory) {
    nb::gil_scoped_release unlocked;
    return probe_read(pool, memory.data(), memory.bytes());
  });
  m.def("probe_dot", [](ThreadPool& pool, const std::string& kind, int64_t iterations) {
    nb::gil_scoped_release unlocked;
    return probe_dot(pool, kind, iterations);
  });

  nb::class_<Memory>(m, "Memory")
      .def(nb::init<int64_t>(), "num_bytes"_a)
      .def_prop_ro("address", [](const Memory& self) { return (uint64_t)self.data(); })
      .def_prop_ro("num_bytes", &Memory::bytes)
      .def("map", &Memory::map, "fd"_a, "source"_a, "target"_a, "num_bytes"_a)
      .def("take_in_turn", &take_in_turn, "nodes"_a)
      .def(
          "view",
          [](Memory& self) {
            return nb::ndarray<uint8_t, nb::numpy, nb::ndim<1>>(self.data(), {(size_t)self.bytes()}, nb::handle());
          },
          nb::rv_policy::reference_internal);

  nb::class_<ThreadPool>(m, "ThreadPool")
      .def(nb::init<std::vector<int>>(), "cpus"_a)
      .def_prop_ro("size", &ThreadPool::size)
      .def_prop_ro("cpus", &ThreadPool::cpus, "One a thread; -1: where the system puts it.");
  m.def("take_pages", &take_pages, "pool"_a, "memory"_a, "spans"_a, "first"_a, "threads"_a,
        nb::call_guard<nb::gil_scoped_release>());

  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          [](Program* self, std::shared_ptr<ThreadPool> pool, int64_t max_top_rows, int64_t threads) {
            new (self) Program(pool, max_top_rows, threads ? threads : pool->size());
          },
          "pool"_a, "max_top_rows"_a, "threads"_a = 0)
      .def("add", &add_call, "family"_a, "isa"_a, "dtype"_a, "args"_a, "tunings"_a = nb::list())
      .def(
          "retune", [](Program& p, const nb::list& tunings) { p.retune(tunings_of(tunings)); }, "tunings"_a)
      .def("run", &run_program, "token_ids"_a, "positions"_a, "slots"_a, "query_start"_a, "context_len"_a,
           "block_table"_a, "logit_rows"_a, "top_rows"_a, "top_counts"_a, "top_ids"_a, "top_values"_a,
           "adapter_slots"_a = nb::none(), "state_slots"_a = nb::none(), "snapshot_slots"_a = nb::none(),
           "snapshot_rows"_a = nb::none(), "token_types"_a = nb::none(), "given"_a = std::vector<Rows2D>(),
           "given_rows"_a = nb::none(), "rope_rows"_a = nb::none(), "row_ends"_a = nb::none(),
           "rope_positions"_a = nb::none())
      .def("profile", &Program::profile, "on"_a)
      .def(
          "last_tuning", [](const Program& p, size_t call) { return tuning_dict(p.last_tuning(call)); }, "call"_a)
      .def_prop_ro(
          "groups",
          [](const Program& p) {
            nb::list out;
            for (const SharingGroup& g : p.groups().groups()) {
              nb::list members;
              for (int64_t i = g.first; i < g.first + g.count; i++) members.append(p.groups().order()[i]);
              out.append(members);
            }
            return out;
          },
          "Sequences of the last step that attention took together.")
      .def_prop_ro(
          "parts",
          [](const Program& p) {
            nb::list out;
            for (const SharingGroup& g : p.groups().groups()) out.append(g.parts);
            return out;
          },
          "Into how many parts at most attention cut the positions of each of these.")
      .def_prop_ro("scratch_bytes", &Program::scratch_bytes);

  nb::class_<Group>(m, "Group")
      .def(nb::init<std::vector<std::shared_ptr<Program>>>(), "ranks"_a)
      .def("run", &run_group, "token_ids"_a, "positions"_a, "slots"_a, "query_start"_a, "context_len"_a,
           "block_table"_a, "logit_rows"_a, "top_rows"_a, "top_counts"_a, "top_ids"_a, "top_values"_a,
           "adapter_slots"_a = nb::none(), "state_slots"_a = nb::none(), "snapshot_slots"_a = nb::none(),
           "snapshot_rows"_a = nb::none());
}
