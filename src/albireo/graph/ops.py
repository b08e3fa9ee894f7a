"""The closed list of base ops: roles, attributes, and the type of what comes out.

Used by builder.py when a node is made and by spec.py between passes. A backend implements these, or the
fused families of the compiler whose bodies are made of these. Knows no arithmetic: that is backends/reference.

The residual stream is float32. Where a value is rounded to the compute dtype, the graph says so with a cast:
the graph is the definition of the numerics, whoever runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from albireo.errors import InvariantError
from albireo.graph.attention_op import attention, check_rows, choose_keys, join_sums, pool_rows
from albireo.graph.node import Attrs, TensorType, Types
from albireo.params import MAX_TOP


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


def _same(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    return (x["x"],)


def _embed(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    return (TensorType("float32", (x["ids"].dims[0], x["table"].dims[1])),)


def _given(_: Types, a: Attrs) -> tuple[TensorType, ...]:
    if not 0 <= a["place"] < MAX_GIVEN:
        raise InvariantError(f"given of place {a['place']}: a step has {MAX_GIVEN}")
    return (TensorType("float32", ("T", a["width"])),)


def _cast(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    return (TensorType(a["dtype"], x["x"].dims),)


def _gather(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    return (TensorType(x["x"].dtype, (x["rows"].dims[0], *x["x"].dims[1:])),)


def _split(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    t = x["x"]
    if sum(a["sizes"]) != t.dims[-1]:
        raise InvariantError(f"split sizes {a['sizes']} do not add up to the last dim of {t}")
    return tuple(TensorType(t.dtype, (*t.dims[:-1], n)) for n in a["sizes"])


def _binary(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    if x["x"] != x["y"]:
        raise InvariantError(f"operands differ: {x['x']} and {x['y']}")
    return (x["x"],)


def _linear(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    a, w = x["x"], x["weight"]
    if a.dims[-1] != w.dims[1]:
        raise InvariantError(f"linear of {a} with weight {w}: inner dims differ")
    if "bias" in x and x["bias"].dims != (w.dims[0],):
        raise InvariantError(f"linear bias {x['bias']} does not fit weight {w}")
    return (TensorType("float32", (*a.dims[:-1], w.dims[0])),)


def _route(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    logits = x["x"]
    count = int(logits.dims[1])
    if not 0 < a["top_k"] <= min(count, MAX_CHOSEN):
        raise InvariantError(f"route chooses {a['top_k']} of {logits}; at most {MAX_CHOSEN} can be chosen")
    for role in ("bias", "gain"):
        if role in x and x[role] != TensorType("float32", (count,)):
            raise InvariantError(f"route {role} {x[role]} does not fit {logits}")
    if not are_groups(count, a, "bias" in x):
        raise InvariantError(f"route of {logits} in groups: {dict(a)} does not fit")
    if "chosen" in x and (x["chosen"].dims != ("T", a["top_k"]) or "bias" in x or "num_groups" in a or "margin" in a):
        raise InvariantError(f"route of {logits} with chosen {x['chosen']}: nothing else says which experts there are")
    if "eps" in a and not (a["renormalize"] and a.get("scores") == "sigmoid"):
        raise InvariantError(
            f"route of {logits} with eps={a['eps']}: it is added to the sum that sigmoids are divided by"
        )
    apart = [name for name in ("scores", *GROUPS) if name in a] + [name for name in ("bias",) if name in x]
    if "by_logits" in a and "bias" not in x:
        raise InvariantError(f"route of {logits} by_logits: there is no bias that would be added to them")
    if "margin" in a and (apart or a["renormalize"]):
        raise InvariantError(f"route of {logits} with margin: weights are of a softmax, as they are chosen")
    dims = ("T", a["top_k"])
    return (TensorType("int32", dims), TensorType("float32", dims))


def are_groups(count: int, a: Attrs, has_bias: bool) -> bool:
    """Whether what a route says of groups of count experts fits together; true where it says nothing.

    Worth of two is a sum of scores, which are only compared where there is a bias.
    """
    given = [a[name] for name in GROUPS if name in a]
    if not given:
        return True
    if len(given) < len(GROUPS):
        return False
    groups, kept, best = given
    if not 0 < groups <= count or count % groups or not 0 < kept <= groups:
        return False
    size = count // groups
    return bool(a["top_k"] <= kept * size and 0 < best <= min(size, 2 if has_bias else 1))


def _head_linear(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    rows, w, heads = x["x"], x["weight"], a["num_heads"]
    if heads < 1 or rows.dims[-1] != heads * int(w.dims[1]) or int(w.dims[0]) % heads:
        raise InvariantError(f"head_linear of {rows} with weight {w}: not {heads} heads of whole rows and columns")
    return (TensorType("float32", (*rows.dims[:-1], w.dims[0])),)


def _join_heads(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    first, second, heads = x["x"], x["y"], a["num_heads"]
    widths = int(first.dims[-1]), int(second.dims[-1])
    is_alike = (first.dtype, first.dims[:-1]) == (second.dtype, second.dims[:-1])
    if heads < 1 or not is_alike or any(width % heads for width in widths):
        raise InvariantError(f"join_heads of {first} and {second}: not {heads} heads of rows alike")
    return (TensorType(first.dtype, (*first.dims[:-1], sum(widths))),)


def _expert_linear(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    rows, w, ids, count = x["x"], x["weight"], x["ids"], a["num_experts"]
    if rows.dims[0] not in ("T", "P") or ids != TensorType("int32", ("T", a["top_k"])):
        raise InvariantError(
            f"expert_linear of {rows} with ids {ids}: wanted T or P rows, and {a['top_k']} ids a token"
        )
    if rows.dims[-1] != w.dims[1] or int(w.dims[0]) % count:
        raise InvariantError(f"expert_linear of {rows} with {count} experts of {w}: inner dims or rows do not fit")
    if "bias" in x and x["bias"].dims != (w.dims[0],):
        raise InvariantError(f"expert_linear bias {x['bias']} does not fit weight {w}")
    return (TensorType("float32", ("P", int(w.dims[0]) // count)),)


def _combine(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    if ("ids" in x) != ("num_experts" in a):
        raise InvariantError(f"combine of {x['x']}: ids and num_experts come together")
    if "ids" in x:
        wanted = TensorType("int32", x["weights"].dims)
        if x["ids"] != wanted or x["x"].dims[0] != "T" or a["num_experts"] < 1:
            raise InvariantError(
                f"combine of {x['x']} by ids {x['ids']} from {a['num_experts']} on: wanted T rows, and ids {wanted}"
            )
        return (TensorType("float32", x["x"].dims),)
    # of one expert a token there are as many pairs as tokens
    known = ("P", "T") if x["weights"].dims[-1] == 1 else ("P",)
    if x["x"].dims[0] not in known or x["weights"].dims[0] != "T":
        raise InvariantError(f"combine of {x['x']} by {x['weights']}: wanted P rows, and T of weights")
    return (TensorType("float32", ("T", *x["x"].dims[1:])),)


def _gate_rows(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    rows, gate = x["x"], x["gate"]
    if gate.dtype != "float32" or gate.dims[:-1] != rows.dims[:-1] or int(rows.dims[-1]) % int(gate.dims[-1]):
        raise InvariantError(f"gate_rows of {rows} by {gate}: wanted float32 numbers, one for each of equal parts")
    if a.get("kind", GATES[0]) not in GATES:
        raise InvariantError(f"gate_rows of kind {a['kind']!r}: wanted one of {', '.join(GATES)}")
    return (rows,)


def _low(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    return (TensorType("float32", (x["x"].dims[0], a.get("chunks", 1) * len(a["modules"]) * a["max_rank"])),)


def _all_reduce(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    if "bias" in x and x["bias"].dims != (x["x"].dims[-1],):
        raise InvariantError(f"all_reduce bias {x['bias']} does not fit {x['x']}")
    return (x["x"],)


def _kv_write(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    return (x["kv"],)


def _rope(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    check_rows(x, "x")
    if len({"slope" in x, "start" in x, "ahead" in a}) > 1:
        raise InvariantError(f"rope of {x['x']}: slope, start and ahead come together")
    if "ahead" in a and a.get("side_by_side", False):
        raise InvariantError(f"rope of {x['x']} side by side, and growing: kernels do the one or the other")
    wanted = TensorType("float32", (a["num_heads"],))
    if any(x[role] != wanted for role in ("slope", "start") if role in x):
        raise InvariantError(f"rope of {x['x']} by slope {x['slope']} and start {x['start']}: wanted {wanted} of each")
    return (x["x"],)


def _causal_conv(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    rows, weight = x["x"], x["weight"]
    channels, parts = weight.dims[0], 3 if a.get("gated") else 1
    if rows.dims != ("T", parts * int(channels)) or not 1 < int(weight.dims[1]) <= MAX_CONV_WIDTH:
        raise InvariantError(
            f"causal_conv of {rows} with {weight}: wanted T rows of {parts} x {channels}, and 2 to {MAX_CONV_WIDTH} "
            "numbers a channel"
        )
    if "bias" in x and x["bias"] != TensorType("float32", (channels,)):
        raise InvariantError(f"causal_conv bias {x['bias']}: wanted a float32 number for each of {channels} channels")
    return (TensorType("float32", ("T", channels)),)


def _depthwise_conv(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    rows, weight = x["x"], x["weight"]
    channels, width = weight.dims
    if rows.dims != ("T", channels) or int(width) % 2 == 0 or int(width) > MAX_DEPTHWISE_WIDTH:
        raise InvariantError(
            f"depthwise_conv of {rows} with {weight}: wanted T rows of {channels}, and an odd number of up to "
            f"{MAX_DEPTHWISE_WIDTH} numbers a channel"
        )
    if "bias" in x and x["bias"] != TensorType("float32", (channels,)):
        raise InvariantError(
            f"depthwise_conv bias {x['bias']}: wanted a float32 number for each of {channels} channels"
        )
    return (TensorType("float32", rows.dims),)


def _gated_delta_rule(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    k_heads, v_heads = a["num_k_heads"], a["num_v_heads"]
    if v_heads % k_heads or x["x"].dims != ("T", 2 * k_heads * a["k_dim"] + v_heads * a["v_dim"]):
        raise InvariantError(f"gated_delta_rule of {x['x']}: {dict(a)} does not fit")
    is_by_channel, rates = "dt" in x, v_heads * (a["k_dim"] if "dt" in x else 1)
    wanted = {"gates": ("T", v_heads if is_by_channel else 2 * v_heads), "a_log": (v_heads,), "dt_bias": (rates,)}
    wanted |= {"dt": ("T", rates)} if is_by_channel else {}
    for role, dims in wanted.items():
        if x[role] != TensorType("float32", dims):
            raise InvariantError(f"gated_delta_rule: {role} {x[role]} does not fit {v_heads} heads of {a['k_dim']}")
    return (TensorType("float32", ("T", v_heads * a["v_dim"])),)


def _selective_state(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    k_heads, v_heads = a["num_k_heads"], a["num_v_heads"]
    if v_heads % k_heads or x["x"].dims != ("T", v_heads * a["v_dim"] + 2 * k_heads * a["k_dim"]):
        raise InvariantError(f"selective_state of {x['x']}: {dict(a)} does not fit")
    vectors = {x[role] for role in ("a_log", "dt_bias", "skip")}
    if x["dt"] != TensorType("float32", ("T", v_heads)) or vectors != {TensorType("float32", (v_heads,))}:
        raise InvariantError(
            f"selective_state: dt {x['dt']} and {sorted(map(str, vectors))} do not fit {v_heads} heads"
        )
    if not 0 <= a.get("dt_least", 0.0) <= a.get("dt_most", math.inf):
        raise InvariantError(f"selective_state: dt is held between {a.get('dt_least')} and {a.get('dt_most')}")
    return (TensorType("float32", ("T", v_heads * a["v_dim"])),)


def _selective_scan(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    channels, keys = x["x"].dims[-1], x["a_log"].dims[-1]
    rows, vector = TensorType("float32", ("T", channels)), TensorType("float32", (channels,))
    wanted = {"x": rows, "dt": rows, "bc": TensorType("float32", ("T", 2 * int(keys))), "dt_bias": vector}
    wanted |= {"skip": vector, "a_log": TensorType("float32", (channels, keys))}
    for role, type_ in wanted.items():
        if x[role] != type_:
            raise InvariantError(f"selective_scan of {x['x']}: {role} is {x[role]}, wanted {type_}")
    return (TensorType("float32", ("T", channels)),)


def _balance(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    count = math.isqrt(int(x["x"].dims[-1]))
    if count**2 != x["x"].dims[-1] or not 1 < count <= MAX_STREAMS:
        raise InvariantError(f"balance of {x['x']}: wanted matrices of 2 to {MAX_STREAMS} rows and as many columns")
    return (x["x"],)


def _top(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    dims = (x["logits"].dims[0], TOP_LOGITS)
    return TensorType("int32", dims), TensorType("float32", dims)


def _norm(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    if "bias" in x and x["bias"].dims != x.get("weight", x["bias"]).dims:
        raise InvariantError(f"norm bias {x['bias']} does not fit weight {x['weight']}")
    return (x["x"],)


def _gain(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    if x["weight"].dims != (x["x"].dims[-1],):
        raise InvariantError(f"gain or shift {x['weight']} does not fit {x['x']}")
    return (x["x"],)


def _scale_by(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    if x["weight"].dims != (1,):
        raise InvariantError(f"scale_by {x['weight']}: wanted one number")
    return (x["x"],)


def _with_two(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    if x["weight"].dims != (2,):
        raise InvariantError(f"weight {x['weight']} of clamp or xielu: wanted two numbers")
    return (x["x"],)


def _add_parts(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    rows, given, parts = x["x"], x["y"], a["num_parts"]
    width, rest = divmod(int(rows.dims[-1]), parts)
    count, more = divmod(int(given.dims[-1]), max(width, 1))
    is_alike = (rows.dtype, rows.dims[0]) == (given.dtype, given.dims[0])
    if rest or more or not count or not is_alike or not 0 <= a["first"] < parts:
        raise InvariantError(f"add_parts of {rows} and {given}: {dict(a)} does not fit")
    if x.get("coefs", rows).dims != (rows.dims[0], parts * count) and "coefs" in x:
        raise InvariantError(f"add_parts coefficients {x['coefs']}: wanted {count} for each of {parts} parts")
    return (rows,)


def _squares(x: Types, _: Attrs) -> tuple[TensorType, ...]:
    rows, cols = x["x"].dims
    return (TensorType("float32", (rows, num_squares(int(cols)))),)


def num_squares(cols: int) -> int:
    """Sums of squares of a row; see SQUARES."""
    return -(-cols // SQUARES)


#: Most rows of a matrix that balance makes, and residual streams of a model.
MAX_STREAMS = 16
#: Of clamped_swiglu.
SWIGLU_ALPHA, SWIGLU_LIMIT = 1.702, 7.0
#: Of xielu, at 0.
XIELU_SLOPE = 0.5
#: Columns whose squares are one sum.
SQUARES = 64
#: Most logits of a row that top_logits finds: MAX_TOP, and one that shows whether others equal the last of them.
TOP_LOGITS = MAX_TOP + 1

#: What the model says of a linear, for whoever cuts it among ranks: its outputs are query, key or value heads,
#: channels of the FFN, or entries of the vocabulary; or its inputs are what such a linear led to ("row"); or it gives
#: what experts are chosen or weighed by ("router"): it stays whole, and its weights stay numbers where others are
#: rounded to few bits. Absent: it stays whole.
LINEAR_ROLES = ("heads", "ffn", "vocab", "row", "router")
#: Most experts of a token.
MAX_CHOSEN = 64
#: Attributes of a route among groups, which come together.
GROUPS = ("num_groups", "kept_groups", "group_best")
#: What route makes of logits; softmax where nothing is said.
SCORES = ("softmax", "sigmoid", "root_softplus")
#: Chosen experts' scores are divided by their sum, or by this where it is less (DeepSeek V3 adds it): where all of them
#: underflow, or a bias decides for experts that have next to none, weights stay numbers.
LEAST_SCORES = 1e-20
#: Arrays of rows that a step may bring, the native core's kMostGiven.
MAX_GIVEN = 12
#: Most rows that a depthwise_conv reads for one.
MAX_DEPTHWISE_WIDTH = 63
#: Most rows that a causal_conv reads for one.
MAX_CONV_WIDTH = 8
#: What a causal_conv makes of its sums, in the native core's order; the first where nothing is said.
CONV_ACTIVATIONS = ("silu", "none")
#: What gate_rows makes of its gates, in the native core's order; the first where nothing is said.
GATES = ("sigmoid", "softplus")
#: Under the root by which gated_delta_rule divides queries and keys.
L2_EPS = 1e-6
#: Ops that keep a state of each sequence from step to step; see attribute state.
RECURRENT = ("causal_conv", "gated_delta_rule", "selective_state", "selective_scan", "pool_rows")
#: Leaves of the tree in which partial sums are added: so many ranks at most compute one model.
MAX_RANKS = 8

#: Of attention, those that are absent where they say nothing.
ATTENTION_ATTRS = (
    "value_dim",
    "both_ways",
    "causal",
    "first_key",
    "num_keys",
    "reach",
    "slopes",
    "in_chunks",
    "result_dim",
    "own_lists",
    "every",
    "sums",
)

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
    # SQUARES columns; and y = x / sqrt(the sum of those / width + eps) (+ bias), row by row
    "gain": Op(("x", "weight"), (), _gain),
    # x + weight over the last dim
    "shift": Op(("x", "weight"), (), _gain),
    "squares": Op(("x",), (), _squares),
    "row_norm": Op(("x", "squares"), ("eps", "width"), _same, optional=("bias",)),
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
    # expert, on its weights, last
    "route": Op(
        ("x",),
        ("top_k", "renormalize"),
        _route,
        optional=("bias", "gain", "chosen"),
        optional_attrs=("scores", *GROUPS, "factor", "eps", "margin", "by_logits"),
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
    # of so many positions entries are chosen, of those that are there at the row's own
    "choose_keys": Op(
        ("q", "kv"),
        ("layer", "num_heads", "head_dim", "count"),
        choose_keys,
        optional=("weights",),
        optional_attrs=("block", "nearest", "every"),
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
    # Source: DeepSeek-AI 2026, DeepSeek-V4
    "pool_rows": Op(("x", "gates", "places"), ("state", "every", "series"), pool_rows),
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
    # Source: Dao and Gu 2024, Transformers are SSMs
    "selective_state": Op(
        ("x", "dt", "a_log", "dt_bias", "skip"),
        ("state", "num_k_heads", "num_v_heads", "k_dim", "v_dim"),
        _selective_state,
        optional_attrs=("dt_least", "dt_most"),
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

UNARY_KINDS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "tanh")


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
