// Body of attention for one ISA level.
#include "kernels/attention/chosen.inl"
#include "kernels/attention/softmax.inl"
#include "simd/row_scale.inl"
#ifdef ALBIREO_TILES
#include "kernels/attention/tiled.inl"
#endif

#include <cstring>

namespace {

template <class W>
void sum_lanes(RowBlock<W>& r) {
  for (int64_t row = 0; row < r.rows; row++) r.fix[row] = sum(load(r.lanes + row * 16));
}

// Adds the open segment, whose lanes are summed, to the whole and opens the next: always in ascending order of
// segments. A segment in which a row saw nothing has sums of zero, so its factor does not matter.
template <class W>
void merge_segment(RowBlock<W>& r, bool is_first) {
  for (int64_t row = 0; !is_first && row < r.rows; row += 16) {
    const int64_t n = r.rows - row < 16 ? r.rows - row : 16;
    const V m = load_up_to(r.m + row, n), total_m = load_up_to(r.total_m + row, n), most = max(total_m, m);
    const V keep_total = exp2_below_126(sub(total_m, most)), keep_new = exp2_below_126(sub(m, most));
    const V l = add(mul(load_up_to(r.total_l + row, n), keep_total), mul(load_up_to(r.fix + row, n), keep_new));
    store_up_to(r.total_m + row, most, n), store_up_to(r.total_l + row, l, n);
    store_up_to(r.m + row, keep_total, n), store_up_to(r.fix + row, keep_new, n);
  }
  for (int64_t row = 0; row < r.rows; row++) {
    float* out = r.out + row * r.Wp;
    float* total = r.total + row * r.Wp;
    if (is_first) {
      r.total_m[row] = r.m[row], r.total_l[row] = r.fix[row];
      for (int64_t e = 0; e < r.Wp; e += 16) store(total + e, load(out + e)), store(out + e, zero());
    } else {
      const V keep_total = set1(r.m[row]), keep_new = set1(r.fix[row]);
      for (int64_t e = 0; e < r.Wp; e += 16) {
        store(total + e, fma(load(total + e), keep_total, mul(load(out + e), keep_new)));
        store(out + e, zero());
      }
    }
    store(r.lanes + row * 16, zero());
    r.m[row] = kNothingSeen;
  }
}

template <class W>
void close_segment(RowBlock<W>& r, bool is_first) {
  sum_lanes(r);
  merge_segment(r, is_first);
}

template <class W, class T>
void attend_tile(const Args& a, RowBlock<W>& r, T& t, int64_t start, int64_t stop) {
  const int64_t positions = stop - start < kAttentionTile ? stop - start : kAttentionTile;
  // Rows are in order of position, or see all of a tile that several sequences share.
  r.has_maxima = Products<W>::kMakesMaxima && !has_scaled(a) && seen_by(a, r, 0, start).all() &&
                 seen_by(a, r, r.rows - 1, start).all();
  t.widen_keys();
  r.products.scores(r, t, positions);
  softmax_rows(a, r, t, start);
  t.widen_values();
  r.products.values(r, t, positions);
}

// Rows of one sequence, or of several where they read the same blocks, over positions from .. stop of what tile is of.
// is_open: they have seen positions before these; is_first: no segment of theirs is closed. Returns whether that still
// holds.
template <class W>
bool walk(const Args& a, RowBlock<W>& r, Tile<W> tile, int64_t from, int64_t stop, bool is_open, bool is_first) {
  for (int64_t start = from; start < stop; start += kAttentionTile) {
    if (start % kAttentionSegment == 0 && (start != from || is_open)) {
      close_segment(r, is_first);
      is_first = false;
    }
    tile.locate(start, stop);
    attend_tile(a, r, tile, start, stop);
  }
  return is_first;
}

// What reads the queries: as float32 where they become whole numbers.
template <class W>
using Queries = std::conditional_t<kIsWhole<W>, WeightF32, W>;

// Of rows that see the first positions, wherever they are: how many there are, which a step may say of a row.
ALBIREO_INLINE int64_t keys_seen(const Args& a, const Step& step, int64_t row) {
  const int64_t end = step.row_ends ? step.row_ends[row] : 0;
  return 0 < end && end < a.num_keys ? end : a.num_keys;
}

// whole: positions of its sequence, of which the step has all where positions add to columns.
template <class W>
ALBIREO_INLINE void load_row(const Args& a, const Step& step, RowBlock<W>& r, int64_t i, int64_t token, int64_t head,
                             int64_t whole, Activations<Queries<W>>& source) {
  const int64_t row = gathered_row(step, a.rows, a.gather, token);
  const int64_t D = a.kv_shape.head_dim, width = head_width(a), from = row * source.source_stride + head * D;
  typename Queries<W>::A* q =
      kIsWhole<W> ? (typename Queries<W>::A*)(r.out + i * r.Qp) : (typename Queries<W>::A*)(r.q + i * r.Qp);
  take_query(q, D, r.Qp, source, from, !kIsWhole<W>);
  if constexpr (kIsWhole<W>) {
    const float scale = row_scale(q, r.Dp, whole_range(r.Dp));
    const bool is_capped = a.softcap > 0 && !a.columns;
    r.q_scale[i] = scale * (is_capped ? a.scale / a.softcap : has_scaled(a) ? a.scale : a.scale * kLog2e);
    const V by = set1(scale);
    for (int64_t e = 0; e < r.Dp; e += 16) store(r.q + i * r.Dp + e, scale > 0.0f ? div(load(q + e), by) : zero());
  }
  if (a.sinks) r.sink[i] = a.sinks[head] * kLog2e;
  if (a.distances) {
    const int64_t width = a.num_distances + 30, per_token = a.num_heads / a.kv_shape.num_kv_heads;
    r.near[i] = r.distances + head % per_token * width + width / 2;
  }
  const int64_t of_step = gathered_row(step, a.rows, Gather::kOfT, token), position = step.positions[of_step];
  r.own[i] = position;
  if (a.slopes) r.slope[i] = a.slopes[head];
  if (a.columns) {
    r.from_row[i] = a.from_rows + row * a.row_stride + head * a.num_columns;
    if (a.from_keys) r.from_key[i] = a.from_keys + (of_step - position) * a.key_stride + head * a.num_columns;
  }
  r.first[i] = position - (a.in_chunks ? position % a.window : a.window - 1);
  if (a.first_key > 0 && (a.window == 0 || r.first[i] < a.first_key)) r.first[i] = a.first_key;
  r.last[i] = a.num_keys > 0 ? keys_seen(a, step, of_step) - 1 : (position + 1) / a.kv_shape.every - 1;
  if (step.row_ends && !a.both_ways && a.num_keys == 0 && step.row_ends[of_step] > position)
    r.last[i] = step.row_ends[of_step] - 1;
  if (a.both_ways > 0) r.last[i] = a.window > 0 && position + a.window < whole ? position + a.window - 1 : whole - 1;
  r.out_at[i] = token * out_stride(a, a.num_heads * width) + head * width;
}

// Nothing seen, nothing summed.
template <class W>
void open_rows(RowBlock<W>& r) {
  for (int64_t i = 0; i < r.rows; i++) r.m[i] = r.total_m[i] = kNothingSeen, r.total_l[i] = 0.0f;
  memset(r.lanes, 0, r.rows * 16 * sizeof(float));
  memset(r.out, 0, r.rows * r.Wp * sizeof(float));
}

// Positions every row of a group sees and finds in the same blocks: whole tiles.
ALBIREO_INLINE int64_t shared_positions(const Args& a, const Step& step, const SharingGroup& g) {
  if (g.count == 1 || has_first(a) || a.columns) return 0;
  const int64_t same = g.shared_blocks * a.kv_shape.block_size;
  // who reads the same blocks sees as many of them
  const int64_t of_first = step.query_start[step.order[g.first]];
  const int64_t seen = a.num_keys > 0 ? keys_seen(a, step, of_first) : g.computed + 1;
  return (same < seen ? same : seen) / kAttentionTile * kAttentionTile;
}

// What rows summed, divided, to where they go.
template <class W>
void put_rows(const Args& a, RowBlock<W>& r) {
  const int64_t rows = r.rows, width = result_width(a);
  for (int64_t i = 0; a.sums && i < rows; i++) {
    float* to = (float*)a.out + r.out_at[i];
    memcpy(to, r.total + i * r.Wp, width * sizeof(float));
    to[width] = r.total_l[i] == 0.0f ? kNothingSeen : r.total_m[i], to[width + 1] = r.total_l[i];
  }
  if (a.sums) return;
  for (int64_t i = 0; i < rows; i += 16) {
    const int64_t n = rows - i < 16 ? rows - i : 16;
    V factor = set1(1.0f), l = load_up_to(r.total_l + i, n);
    if (a.sinks) {  // one score more, of no value: last, so that it is once in a row however the row was cut
      const V m = load_up_to(r.total_m + i, n), sink = load_up_to(r.sink + i, n), most = max(m, sink);
      factor = exp2_below_126(sub(m, most)), l = add(mul(l, factor), exp2_below_126(sub(sink, most)));
    }
    store_up_to(r.fix + i, div(factor, l), n);
  }
  for (int64_t i = 0; i < rows; i++) {
    const V inverse = set1(r.fix[i]);
    for (int64_t e = 0; e < width; e += 16)
      store_as(a.out_dtype, a.out, r.out_at[i] + e, mul(load(r.total + i * r.Wp + e), inverse), width - e);
  }
}

// A part of a whole: which, of how many, and what they all leave.
struct Part {
  int64_t index, count;
  float* sums;
  int32_t* done;
};

// Positions from .. stop of one sequence, from one segment boundary to the next: segments of this part of them are left
// in part.sums; the part that is done last merges all into r. Returns whether it was this one.
template <class W>
bool walk_part(const Args& a, RowBlock<W>& r, Tile<W> tile, int64_t from, int64_t stop, const Part& part) {
  const int64_t first = from / kAttentionSegment, seen = ceil_div(stop, kAttentionSegment) - first;
  const int64_t count = seen < 1 ? 1 : seen;  // rows that see nothing have a segment of nothing, as in one part
  const int64_t of_rows = r.rows * r.Wp, size = of_rows + 2 * r.rows;
  for (int64_t i = count * part.index / part.count; i < count * (part.index + 1) / part.count; i++) {
    const int64_t begin = (first + i) * kAttentionSegment, end = begin + kAttentionSegment;
    open_rows(r);
    walk(a, r, tile, begin > from ? begin : from, end < stop ? end : stop, false, true);
    sum_lanes(r);
    float* to = part.sums + i * size;
    memcpy(to, r.out, of_rows * sizeof(float));
    memcpy(to + of_rows, r.m, r.rows * sizeof(float));
    memcpy(to + of_rows + r.rows, r.fix, r.rows * sizeof(float));
  }
  // not std::atomic_ref, which is missing in libc++ before 19 (Xcode 16.3)
  if (__atomic_add_fetch(part.done, 1, __ATOMIC_ACQ_REL) < part.count) return false;
  __atomic_store_n(part.done, 0, __ATOMIC_RELAXED);
  for (int64_t i = 0; i < count; i++) {
    const float* of = part.sums + i * size;
    memcpy(r.out, of, of_rows * sizeof(float));
    memcpy(r.m, of + of_rows, r.rows * sizeof(float));
    memcpy(r.fix, of + of_rows + r.rows, r.rows * sizeof(float));
    merge_segment(r, i == 0);
  }
  return true;
}

template <class W>
void attend(const Args& a, const Step& step, const SharingGroup& g, int64_t kv_head, int64_t row_block,
            const Part& part, Products<W>& products, Scratch& scratch) {
  const int64_t per_token = a.num_heads / a.kv_shape.num_kv_heads, D = a.kv_shape.head_dim;
  const int64_t all_rows = g.tokens * per_token, most = item_rows(a, g), first_row = row_block * most;
  const int64_t rows = all_rows - first_row < most ? all_rows - first_row : most;
  RowBlock<W> r(products, scratch.base, rows, a.kv_shape.padded_head_dim, round_up(value_width(a), 16),
                a.num_distances ? per_token * (a.num_distances + 30) : 0);
  for (int64_t h = 0; a.distances && h < per_token; h++)
    for (int64_t i = -15; i < a.num_distances + 15; i++) {
      const int64_t d = i < 0 ? 0 : i < a.num_distances ? i : a.num_distances - 1;
      r.distances[h * (a.num_distances + 30) + 15 + i] = a.distances[d * a.num_heads + kv_head * per_token + h];
    }
  Activations<Queries<W>> source{a.x, a.x_dtype, D, x_stride(a, a.num_heads * D), scratch, nullptr};

  // Rows of the group are (sequence, token, head). visit(b, begin, end, skipped): this item has rows begin .. end of
  // sequence b, from its row skipped on.
  auto each_sequence = [&](auto visit) {
    for (int64_t i = 0, row = -first_row; i < g.count && row < rows; i++) {
      const int64_t b = step.order[g.first + i];
      const int64_t begin = row > 0 ? row : 0, skipped = begin - row;
      row += (step.query_start[b + 1] - step.query_start[b]) * per_token;
      if (row > 0) visit(b, begin, row < rows ? row : rows, skipped);
    }
  };
  each_sequence([&](int64_t b, int64_t begin, int64_t end, int64_t skipped) {
    int64_t token = step.query_start[b] + skipped / per_token, head = skipped % per_token;
    const int64_t ahead = most / per_token + 1;  // the next item begins about there
    const int64_t whole = whole_context(step, b);
    for (int64_t i = begin; i < end; i++) {
      load_row(a, step, r, i, token, kv_head * per_token + head, whole, source);
      if (a.rows == Rows::kT && token + ahead < step.T)
        source.fetch((token + ahead) * source.source_stride + (kv_head * per_token + head) * D);
      if (++head == per_token) head = 0, token++;
    }
  });
  const auto from_of = [&](const RowBlock<W>& rows) {
    const int64_t low = has_first(a) && rows.first[0] > 0 ? rows.first[0] : 0;
    return low - low % kAttentionTile;
  };
  if (part.count > 1) {
    const Tile<W> of_one(a, table_of(step, step.order[g.first]), kv_head, r.joined);
    if (walk_part(a, r, of_one, from_of(r), r.last[rows - 1] + 1, part)) put_rows(a, r);
    return;
  }
  open_rows(r);
  const int64_t shared = shared_positions(a, step, g);
  const int32_t* common = table_of(step, step.order[g.first]);
  const auto tile = [&](const int32_t* table) { return Tile<W>(a, table, kv_head, r.joined); };
  const bool is_first = shared == 0 || walk(a, r, tile(common), 0, shared, false, true);
  each_sequence([&](int64_t b, int64_t begin, int64_t end, int64_t) {
    RowBlock<W> own = r.part(begin, end);
    const int64_t stop = own.last[own.rows - 1] + 1;  // rows are in order of position
    const int64_t from = shared > 0 ? shared : from_of(own);
    close_segment(own, walk(a, own, tile(table_of(step, b)), from, stop, shared > 0, is_first));
  });
  put_rows(a, r);
}

// Heads of one token, which see what it has chosen: all of them meet a tile before the next one is put together.
template <class W>
void attend_chosen(const Args& a, const Step& step, const SharingGroup& g, int64_t kv_head, int64_t item,
                   Products<W>& products, Scratch& scratch) {
  const int64_t per_token = a.num_heads / a.kv_shape.num_kv_heads, most = chosen_rows(a, step);
  const int64_t blocks = ceil_div(per_token, most), first_row = item % blocks * most, D = a.kv_shape.head_dim;
  const int64_t b = step.order[g.first], token = step.query_start[b] + item / blocks;
  const int64_t rows = per_token - first_row < most ? per_token - first_row : most;
  RowBlock<W> r(products, scratch.base, rows, a.kv_shape.padded_head_dim, round_up(value_width(a), 16), 0);
  Activations<Queries<W>> source{a.x, a.x_dtype, D, x_stride(a, a.num_heads * D), scratch, nullptr};
  const int64_t of_step = gathered_row(step, a.rows, Gather::kOfT, token);
  const int32_t* list = list_of(a, of_step, kv_head);
  const int64_t seen = listed(list, a.n);
  for (int64_t i = 0; i < rows; i++) {
    load_row(a, step, r, i, token, kv_head * per_token + first_row + i, 0, source);
    r.last[i] = seen - 1;
  }
  open_rows(r);
  ChosenTile<W> tile(a, table_of(step, b), kv_head, r.joined, list);
  for (int64_t start = 0; start < seen; start += kAttentionTile) {
    if (start > 0 && start % kAttentionSegment == 0) close_segment(r, start == kAttentionSegment);
    tile.locate(start, seen);
    for (int64_t row = 0; row < rows; row += kAttentionRows) {
      RowBlock<W> some = r.part(row, rows - row < kAttentionRows ? rows : row + kAttentionRows);
      attend_tile(a, some, tile, start, seen);
    }
  }
  close_segment(r, seen <= kAttentionSegment);
  put_rows(a, r);
}

template <class W>
void run_attention(const Args& a, const Step& step, int64_t begin, int64_t end, Scratch& scratch) {
  const int64_t K = a.kv_shape.num_kv_heads;
  Products<W> products;
  int64_t item = 0;
  float* sums = step.part_sums;
  int32_t* done = step.parts_done;
  for (int64_t g = 0; g < step.num_groups && item < end; g++) {
    const SharingGroup& group = step.groups[g];
    const int64_t wholes = group_wholes(a, step, group), parts = parts_of(a, step, group), items = wholes * parts * K;
    const int64_t each = parts > 1 ? whole_sums(a, step, group) : 0;
    const int64_t first = begin > item ? begin - item : 0, last = end - item < items ? end - item : items;
    for (int64_t i = first; i < last; i++) {
      const int64_t whole = i / parts, head = whole / wholes, block = whole % wholes;
      if constexpr (!Tile<W>::kScaled)
        if (sees_chosen(a, step, group)) {
          attend_chosen<W>(a, step, group, head, block, products, scratch);
          continue;
        }
      const Part part{i % parts, parts, sums + whole * each, done + whole};
      attend<W>(a, step, group, head, block, part, products, scratch);
    }
    item += items;
    if (parts > 1) sums += wholes * K * each, done += wholes * K;
  }
}

#ifdef ALBIREO_TILES
// Whether queries and keys meet in tile registers: else they are another level's.
constexpr bool is_tiled(const Args& a) {
  return a.x_dtype == DType::kBF16 && (a.kv_shape.dtype == DType::kBF16 || a.kv_shape.dtype == DType::kFp8);
}

ALBIREO_INLINE void dispatch_attention(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.kv_shape.dtype == DType::kFp8) return run_attention<Coded<TilePairs>>(a, s, begin, end, scratch);
  run_attention<TilePairs>(a, s, begin, end, scratch);
}
#else
ALBIREO_INLINE void dispatch_attention(const Args& a, const Step& s, int64_t begin, int64_t end, Scratch& scratch) {
  if (a.kv_shape.dtype == DType::kInt8) return run_attention<Whole>(a, s, begin, end, scratch);
  if (a.kv_shape.dtype == DType::kFp8) {
#ifdef ALBIREO_HAVE_BF16_DOT
    if (a.x_dtype == DType::kBF16) return run_attention<Coded<WeightBF16Dot>>(a, s, begin, end, scratch);
#endif
    return run_attention<Coded<UnroundedPairs>>(a, s, begin, end, scratch);
  }
  if (a.kv_shape.dtype == DType::kBF16 && a.x_dtype != DType::kBF16)
    return run_attention<UnroundedPairs>(a, s, begin, end, scratch);
  if (a.kv_shape.dtype == DType::kF32) run_attention<WeightF32>(a, s, begin, end, scratch);
  else if (a.kv_shape.dtype == DType::kF16) run_attention<WeightF16>(a, s, begin, end, scratch);
  else run_attention<PairPolicy>(a, s, begin, end, scratch);
}
#endif

}  // namespace
