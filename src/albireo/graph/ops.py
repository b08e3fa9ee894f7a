"""The closed list of base ops: roles, attributes, and the type of what comes out.

Used by builder.py when a node is made and by spec.py between passes. A backend implements these, or the
fused families of the compiler whose bodies are made of these. Knows no arithmetic: that is backends/reference.

The residual stream is float32. Where a value is rounded to the compute dtype, the graph says so with a cast:
the graph is the definition of the numerics, whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from albireo.errors import InvariantError
from albireo.graph.attention_op import attention, choose_keys, join_sums, pool_rows
from albireo.graph.node import Attrs, TensorType, Types
from albireo.graph.op_numbers import (
    ATTENTION_ATTRS,
    GROUPS,
)
from albireo.graph.op_types import (
    _add_parts,
    _all_reduce,
    _balance,
    _binary,
    _cast,
    _causal_conv,
    _combine,
    _depthwise_conv,
    _embed,
    _expert_linear,
    _gain,
    _gate_rows,
    _gated_delta_rule,
    _gather,
    _given,
    _head_linear,
    _join_heads,
    _kv_write,
    _linear,
    _low,
    _norm,
    _rope,
    _route,
    _same,
    _scale_by,
    _selective_scan,
    _selective_state,
    _split,
    _squares,
    _top,
    _with_two,
)


@dataclass(frozen=True, slots=True)
class Growth:
    """Queries that are longer the farther behind they are: times 1 + by * ln(1 + floor((position + ahead) / period)).

    Source: Nakanishi 2025, Scalable-Softmax; as Llama 4 and Ministral 3 have it.
    """

    by: float
    period: int
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding as numbers: any scaling scheme ends here.

    Fields:
        inv_freq: [D/2] radians per position; pair i is channels (i, i + D/2). A pair of 0 never turns.
        attention_factor: multiplies both cos and sin of pairs that turn (yarn, longrope); 1.0 otherwise.
        growth: multiplies both of all pairs; None: nothing does.
        behind: rows are rotated as the row so many positions before them, or the first one.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    growth: Growth | None = None
    behind: int = 0

    @property
    def back(self) -> RopeSpec:
        """That which undoes it."""
        return replace(self, inv_freq=tuple(-each for each in self.inv_freq))

    @property
    def of_keys(self) -> RopeSpec:
        """That of keys, where this is that of queries."""
        return replace(self, growth=None)

    def __str__(self) -> str:
        grows = "" if self.growth is None else f", growing by {self.growth.by:g}"
        behind = f", {self.behind} behind" if self.behind else ""
        return f"rope[{len(self.inv_freq)} pairs, factor {self.attention_factor:g}{grows}{behind}]"


@dataclass(frozen=True, slots=True)
class Op:
    """One base op: required and optional input roles, attribute names, and its type rule.

    Fields: optional_attrs: absent where they say nothing.
    """

    required: tuple[str, ...]
    attrs: tuple[str, ...]
    infer: Callable[[Types, Attrs], tuple[TensorType, ...]]
    optional: tuple[str, ...] = ()
    optional_attrs: tuple[str, ...] = ()

    @property
    def all_attrs(self) -> tuple[str, ...]:
        return self.attrs + self.optional_attrs


#: op -> what it needs. In the order in which a layer uses them.
OPS: dict[str, Op] = {
    # x[t] = table[ids[t]], widened to float32. Of token_ids: a row that the step gives for a token (step input
    # given_rows) is read in its place, but where all rows are the table's: never_given
    "embed": Op(("ids", "table"), (), _embed, optional_attrs=("never_given",)),
    # rows of T that come with the step, at one of MAX_GIVEN places
    "given": Op((), ("width", "place"), _given),
    # x[t] + row given_rows[t] of those; x[t] where that is -1
    "add_given": Op(("x",), ("place",), _same),
    # rounds (nearest even) or widens
    "cast": Op(("x",), ("dtype",), _cast),
    # y = x / sqrt(mean(x^2) + eps) * weight (+ bias) over the last dim, or over each of num_heads equal parts of it,
    # whose weight is one of all parts, or has numbers for each. centered: of x minus its mean, which is LayerNorm;
    # without a weight nothing is multiplied
    "rms_norm": Op(("x",), ("eps", "num_heads"), _norm, optional=("weight", "bias"), optional_attrs=("centered",)),
    # a norm in three steps, see compiler/passes/fold_norm.py: x * weight over the last dim; sums of x^2 over each
    # SQUARES columns; and y = x / sqrt(the sum of those / width + eps) (+ bias), row by row; with ids, of pairs (see
    # expert_linear), a row's part of bias is that of its expert
    "gain": Op(("x", "weight"), (), _gain),
    # x + weight over the last dim
    "shift": Op(("x", "weight"), (), _gain),
    "squares": Op(("x",), (), _squares),
    "row_norm": Op(("x", "squares"), ("eps", "width"), _same, optional=("bias", "ids")),
    # y = x @ weight^T (+ bias), accumulated and returned in float32. chunks: the inner dim is cut into so many equal
    # parts; each is summed alone, neighbours are added in float32, then their sums, as a binary tree; then the bias
    # low: what adapter gave for the same modules; rows with an adapter get low @ B^T of it, the bias comes after that;
    # each of chunks gets that of its own
    "linear": Op(
        ("x", "weight"),
        (),
        _linear,
        optional=("bias", "low", "slots"),
        optional_attrs=("role", "chunks", "keeps", "modules", "module_rows", "module_inputs"),
    ),
    # y[t, h] = x[t, h] @ block h of weight^T: each of num_heads equal parts of a row, with rows h * N to (h + 1) * N
    # of weight [num_heads * N, K]; summed as linear does
    "head_linear": Op(("x", "weight"), ("num_heads",), _head_linear),
    # out[t, j] = x[t, j] + (coefs[t, j, 0] + plus) * y[t, 0] + (coefs[t, j, 1] + plus) * y[t, 1] + ... of num_parts
    # parts j of a row from first on, y having parts of the same width; the parts before stay. No coefs: they are zeros
    "add_parts": Op(("x", "y"), ("num_parts", "first", "plus"), _add_parts, optional=("coefs",)),
    # x * sqrt(mean(y^2) / max(mean(x^2), least)), row by row
    "match_length": Op(("x", "y"), ("least",), _binary),
    # what x is above its row's mean and so many of its standard deviations, else 0
    "cut": Op(("x",), ("deviations",), _same),
    # matrices of n rows and columns, row by row, such that rows and columns add up to one: the softmax of each column,
    # plus eps, each row divided by its sum + eps; and rounds - 1 times columns, then rows, likewise.
    # Source: Sinkhorn and Knopp 1967; Xie et al. 2026, Manifold-Constrained Hyper-Connections
    "balance": Op(("x",), ("rounds", "eps"), _balance),
    # y[t, h] = x[t, h], then y[t, h]: the parts of two rows' num_heads heads side by side
    "join_heads": Op(("x", "y"), ("num_heads",), _join_heads),
    # x @ A^T of each row's adapter, by its slot (-1: none, and nothing is said of the row). modules: of the linear that
    # multiplies x as (name, first, end), the columns each has; max_rank: columns of the result for each.
    # Of a part of a linear: module_rows: the first row that it has of each; module_inputs: first and end of the inputs.
    # chunks: as of the linear, side by side in the result, the modules of one within
    "adapter": Op(
        ("x", "slots"), ("modules", "max_rank"), _low, optional_attrs=("chunks", "module_rows", "module_inputs")
    ),
    # the top_k best of each row of logits, best first, of equals the lowest id, NaN before all numbers; and their
    # softmax over all logits, or, renormalize, over the chosen ones. In float32; sums ascending, of the chosen by
    # rank. scores "sigmoid": weights are sigmoids instead, renormalize: divided by the sum of the chosen ones;
    # "root_softplus": likewise of sqrt(log(1 + e^x)). chosen: the ids, as float32, and nothing is compared. bias:
    # what is compared is score + bias, or, by_logits, logit + bias; weights know nothing of it. num_groups: experts
    # are so many groups, and are chosen from the kept_groups best alone; a group's worth is the sum of its group_best
    # best. eps: added to the sum that sigmoids are divided by. margin: the j-th weight is of a softmax over those
    # experts alone that are not chosen before it and whose logit x is near the chosen one's, m: m - x <= margin *
    # max(|x|, m), each rounded to float32 (source: Liu et al. 2024, GRIN). factor: on all weights; gain: of each
    # expert, on its weights, last. shared: the last of the top_k is no choice but an expert that every row has, whose
    # number is that of the logits; its weight is 1, or the sigmoid of gate [T, 1]
    "route": Op(
        ("x",),
        ("top_k", "renormalize"),
        _route,
        optional=("bias", "gain", "chosen", "gate"),
        optional_attrs=("scores", *GROUPS, "factor", "eps", "margin", "by_logits", "shared"),
    ),
    # row p = x[p // top_k, or p where x has P rows] @ block^T (+ block of bias), block being rows e * N to (e + 1) * N
    # of weight [num_experts * N, K] with e = ids[p]; each row as linear sums it. Ids of num_experts and above have no
    # block: their rows are zeros
    "expert_linear": Op(
        ("x", "ids", "weight"),
        ("num_experts", "top_k"),
        _expert_linear,
        optional=("bias",),
        optional_attrs=("role", "keeps"),
    ),
    # y[t] = weights[t, 0] * x[t * top_k] + weights[t, 1] * x[t * top_k + 1] + ... in float32: each product is rounded,
    # then added, in this order. ids: those of num_experts and above give back what they read, x [T, K]: y[t] = x[t] *
    # the sum of weights[t, j] with ids[t, j] >= num_experts, j ascending. Source: Meituan 2025, LongCat-Flash
    "combine": Op(("x", "weights"), (), _combine, optional=("ids",), optional_attrs=("num_experts",)),
    # y[t, h] = sigmoid(gate[t, h]) * x[t, h], of as many equal parts h of a row as it has gates. kind: one of GATES
    "gate_rows": Op(("x", "gate"), (), _gate_rows, optional_attrs=("kind",)),
    # the x of all ranks, which run the same graph on their parts of the weights, added as a binary tree: neighbours
    # first, then their sums; then (+ bias)
    "all_reduce": Op(("x",), ("ranks",), _all_reduce, optional=("bias",)),
    # the last dim cut into parts
    "split": Op(("x",), ("sizes",), _split),
    # rotates each head's channel pairs (i, i + D/2) by position * inv_freq[i], or as the step says of each row (step
    # input rope_rows); rows: x row i is row rows[i] of the step. side_by_side: pairs are channels (2i, 2i + 1). slope,
    # start, where they are not: each head is then multiplied by slope[h] * ln(position + ahead) + start[h]. Source:
    # Nakanishi 2025, Scalable-Softmax
    "rope": Op(
        ("x", "positions"),
        ("num_heads", "head_dim", "rope"),
        _rope,
        optional=("rows", "slope", "start"),
        optional_attrs=("side_by_side", "ahead"),
    ),
    # k, v (rounded to the KV dtype) into the slots of this step's tokens; returns the state after. Without v values
    # are channels of keys, and attention says how many. A layer may be written again, where nobody reads what was
    # there. every: so many positions have one entry, what the row of the last of them has; other rows are not written
    "kv_write": Op(
        ("k", "kv"), ("layer", "num_kv_heads", "head_dim"), _kv_write, optional=("v",), optional_attrs=("every",)
    ),
    # of each row the count positions, its own and those before it, of highest score, in ascending order; of equals the
    # first. Of fewer, all; -1 behind them. score[s] = weights[t, 0] * max(q[t, 0] . k[s], 0) + weights[t, 1] * ... in
    # float32, k being the keys of a layer of one head. Source: DeepSeek-AI 2025, DeepSeek-V3.2
    # block, and no weights: each head chooses for itself, count positions in blocks that begin at multiples of block;
    # score[s] = q[t, h] . k[s], a block is worth its best score up to the row's own position, and the `nearest` last
    # blocks are always chosen. Gives the lists of all heads, one behind the other. every: of a layer whose entries are
    # of so many positions entries are chosen, of those that are there at the row's own. as_positions: for each entry
    # its positions are given, and behind them those that have no entry yet, of which there are at most every - 1: count
    # is of positions, (count - every + 1) / every entries are chosen. No weights, and no block: they are all 1
    "choose_keys": Op(
        ("q", "kv"),
        ("layer", "num_heads", "head_dim", "count"),
        choose_keys,
        optional=("weights",),
        optional_attrs=("block", "nearest", "every", "as_positions"),
    ),
    # attention of q over each sequence's cache; window counts the positions seen, itself included. Causal, but where
    # the step says where a row's positions end (step input row_ends), which causal ones do not ask; unless both_ways:
    # rows see all positions, or those less than window away, and a step has all of a sequence. sinks: of each head one
    # more score, not scaled nor capped, in every row's softmax; it has no value. value_dim: where the cache has keys
    # alone, values are so many of their first channels. rows: of q row i is row rows[i] of the step. distances:
    # [2n + 1, H] what is added to scaled scores by how far a position is from the row's, -n to n and beyond. first_key:
    # rows see no position before it. num_keys: rows see the first so many, wherever they are themselves, and of these
    # those before row_ends, where the step says so. slopes: of each head; slopes[h] * (position - the row's) is added
    # to scaled scores (source: Press et al. 2021, ALiBi). chosen: [T, n] positions that each row sees, those of
    # choose_keys; no others. own_lists: as many lists as there are KV heads, each of one. result_dim: of values so
    # many first channels are meant, and given; the others are zeros.
    # in_chunks: window is the length of chunks, which begin at its multiples; rows see their
    # own alone. from_rows, from_keys: [T, H * n]: before they are scaled, and capped, scores have added what the row
    # has at the head's column distance_columns(n, reach) of their distance, and, of rows both ways, what the row at
    # that position has there, if from_keys are given. every: of a layer whose entries are of so many positions, rows
    # see entries that are there at their own position; chosen are entries. sums: of each head sum of 2^(s - m) v, not
    # divided, then m, the largest s, and the sum of 2^(s - m), s being scores times log2(e): join_sums makes an
    # attention of two such. Where a row sees nothing, m is NOTHING_SEEN and the others are 0
    "attention": Op(
        ("q", "kv"),
        ("layer", "num_heads", "num_kv_heads", "head_dim", "scale", "window", "softcap"),
        attention,
        optional=("sinks", "rows", "distances", "chosen", "from_rows", "from_keys"),
        optional_attrs=ATTENTION_ATTRS,
    ),
    # attention to all that x and y have seen, and to a score of each head more, which has no value; both are attentions
    # that give sums
    "join_sums": Op(("x", "y", "sinks"), ("num_heads",), join_sums),
    # of every `every` rows of a sequence one, where such a window of positions ends; other rows are zeros. Channel by
    # channel the mean of x by the softmax of gates + places[position % every], over the rows of the window. series 2:
    # rows have two series of channels; the mean is over the first series of the window before and the last of its own,
    # the first window's over its own alone. state [3 or 9, D] float32: largest gate, sum of powers, sum of products of
    # the rows so far; of two series of the last, of the first for the next window, and of the first for this one.
    # Source: DeepSeek-AI 2026, DeepSeek-V4. Without gates and places all rows count alike
    "pool_rows": Op(("x",), ("state", "every", "series"), pool_rows, optional=("gates", "places")),
    # a convolution over the rows of each sequence, channel by channel: y[t] = act(weight[:, 0] * x[t - W + 1] + ... +
    # weight[:, W - 1] * x[t] (+ bias)). Rows before a sequence's first are zeros; those before the step's are the
    # state. activation: one of CONV_ACTIVATIONS. gated: rows are three parts: what x is multiplied by before, what y is
    # multiplied by at the end, and x. state: which of a sequence's states this is; each is one op's, which nobody else
    # reads or writes, so that it is no value of the graph
    "causal_conv": Op(
        ("x", "weight"), ("state",), _causal_conv, optional=("bias",), optional_attrs=("activation", "gated")
    ),
    # a convolution over all rows of the step, which are one sequence, channel by channel: y[t] = act(weight[:, 0] *
    # x[t - W // 2] + ... + weight[:, W - 1] * x[t + W // 2] (+ bias)); rows that it does not have are zeros. W is odd.
    # activation: one of CONV_ACTIVATIONS
    "depthwise_conv": Op(("x", "weight"), (), _depthwise_conv, optional=("bias",), optional_attrs=("activation",)),
    # the gated delta rule over the rows of each sequence, one after another; state [num_v_heads, k_dim, v_dim] float32.
    # x: queries and keys of num_k_heads, values of num_v_heads; heads of values share a key in runs. gates: b, then a.
    #   q, k: each divided by sqrt(sum of squares + L2_EPS), q also by sqrt(k_dim)
    #   S = exp(-exp(a_log) * softplus(a + dt_bias)) * S;  S = S + k (sigmoid(b) * (v - k^T S))^T;  y = q^T S
    # learns_twice: 2 * sigmoid(b) in its place. dt [T, num_v_heads * k_dim]: in the place of a, for each row of S by
    # itself; gates are b alone then, and dt_bias is as long. most_decay: the state is multiplied by
    # exp(-most_decay * sigmoid(exp(a_log) * (a + dt_bias))) instead, which is above exp(-most_decay)
    # Sources: Yang, Kautz, Hatamizadeh 2024, Gated Delta Networks; Kimi Team 2025, Kimi Linear
    "gated_delta_rule": Op(
        ("x", "gates", "a_log", "dt_bias"),
        ("state", "num_k_heads", "num_v_heads", "k_dim", "v_dim"),
        _gated_delta_rule,
        optional=("dt",),
        optional_attrs=("learns_twice", "most_decay"),
    ),
    # the selective state space of Mamba 2 over the rows of each sequence, one after another; state [num_v_heads, k_dim,
    # v_dim] float32. x: values of num_v_heads, then b, then c of num_k_heads, which heads of values share in runs.
    #   t = softplus(dt + dt_bias), held between dt_least and dt_most where they are there
    #   S = exp(-exp(a_log) * t) * S + b (t * v)^T;  y = c^T S + skip * v
    # slopes, of each head, in place of dt and all vectors: t = 1, skip = 0, and exp(-slope) of S is kept
    # Sources: Dao and Gu 2024, Transformers are SSMs; Qin et al. 2024, Lightning Attention-2
    "selective_state": Op(
        ("x",),
        ("state", "num_k_heads", "num_v_heads", "k_dim", "v_dim"),
        _selective_state,
        optional=("dt", "a_log", "dt_bias", "skip"),
        optional_attrs=("dt_least", "dt_most", "slopes"),
    ),
    # the selective state space of Mamba 1 over the rows of each sequence, one after another; state [K, E] float32. x,
    # dt: [T, E] of E channels, each by itself; bc: b, then c, [T, 2 K]; a_log: [E, K]; dt_bias, skip: [E].
    #   t = softplus(dt + dt_bias);  S[k] = exp(-exp(a_log[:, k]) * t) * S[k] + b[k] * t * x;  y = c^T S + skip * x
    # Source: Gu and Dao 2023, Mamba
    "selective_scan": Op(("x", "dt", "bc", "a_log", "dt_bias", "skip"), ("state",), _selective_scan),
    "add": Op(("x", "y"), (), _binary),
    "mul": Op(("x", "y"), (), _binary),
    # of gate x and up y: (u + 1) * g * sigmoid(SWIGLU_ALPHA * g), g = min(x, SWIGLU_LIMIT), u = y kept between
    # -SWIGLU_LIMIT and SWIGLU_LIMIT
    "clamped_swiglu": Op(("x", "y"), (), _binary),
    # kind: one of UNARY_KINDS; gelu is that of the error function
    "unary": Op(("x",), ("kind",), _same),
    # x * factor
    "scale": Op(("x",), ("factor",), _same),
    # x * weight[0]: a factor that the checkpoint holds
    "scale_by": Op(("x", "weight"), (), _scale_by),
    # x kept between -most and most; above: x, or most where that is less
    "clip": Op(("x",), ("most",), _same, optional_attrs=("above",)),
    # x kept between weight[0] and weight[1]
    "clamp": Op(("x", "weight"), (), _with_two),
    # p * max(x, 0)^2 + n * (e^m - 1 - m) + XIELU_SLOPE * x with m = min(x, 0), p = softplus(weight[0]) and n =
    # XIELU_SLOPE + softplus(weight[1]). Source: Huang and Schlag 2024, Deriving activation functions using integration
    "xielu": Op(("x", "weight"), (), _with_two),
    # y[i] = x[rows[i]]
    "gather_rows": Op(("x", "rows"), (), _gather),
    # ids of the best logits of each row, best first (of equals the lowest id first), and these logits. Those behind
    # the last that a row wants (step input top_counts), or that there is, are -1 and -inf
    "top_logits": Op(("logits",), (), _top),
}


def infer(op: str, inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    """Types of the outputs of op. Raises: InvariantError when roles, attributes or shapes do not fit."""
    rule = OPS.get(op)
    if rule is None:
        raise InvariantError(f"unknown op {op!r}")
    allowed = rule.required + rule.optional
    missing = [role for role in rule.required if role not in inputs]
    extra = [role for role in inputs if role not in allowed]
    if missing or extra or set(attrs) - set(rule.optional_attrs) != set(rule.attrs):
        raise InvariantError(
            f"{op}: roles missing {missing}, extra {extra}; attributes {sorted(attrs)}, wanted {sorted(rule.attrs)}"
        )
    return rule.infer(inputs, attrs)
