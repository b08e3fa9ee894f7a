"""Type rules of ops: of the types and attributes that go in, the types that come out.

Used by ops.py, which has the list; attention's are in attention_op.py. InvariantError is raised for what does not fit.
"""

from __future__ import annotations

import math

from albireo.errors import InvariantError
from albireo.graph.attention_op import check_rows
from albireo.graph.node import Attrs, TensorType, Types
from albireo.graph.op_numbers import (
    GATES,
    GROUPS,
    MAX_CHOSEN,
    MAX_CONV_WIDTH,
    MAX_DEPTHWISE_WIDTH,
    MAX_GIVEN,
    MAX_ROUNDS,
    MAX_STREAMS,
    SQUARES,
    TOP_LOGITS,
)


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
    count, num_chosen = int(logits.dims[1]), a["top_k"] - bool(a.get("shared", False))
    if "gate" in x and ("shared" not in a or x["gate"] != TensorType("float32", ("T", 1))):
        raise InvariantError(f"route of {logits} with gate {x['gate']}: it is that of an expert that all rows have")
    if "chosen" in x and "shared" in a:
        raise InvariantError(f"route of {logits}: an expert that all rows have stands beside a choice, not a table's")
    if not 0 < num_chosen <= min(count, MAX_CHOSEN):
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
    num_chosen = a["top_k"] - bool(a.get("shared", False))
    return bool(num_chosen <= kept * size and 0 < best <= min(size, 2 if has_bias else 1))


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
    roles = ("dt", "a_log", "dt_bias", "skip")
    if "slopes" in a:
        if len(a["slopes"]) != v_heads or any(role in x for role in roles):
            raise InvariantError(
                f"selective_state of {len(a['slopes'])} slopes: wanted one for each of {v_heads} heads, and none of "
                f"{', '.join(roles)}"
            )
        return (TensorType("float32", ("T", v_heads * a["v_dim"])),)
    if any(role not in x for role in roles):
        raise InvariantError(f"selective_state of {', '.join(x)}: wanted {', '.join(roles)}, or slopes")
    vectors = {x[role] for role in roles[1:]}
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


def _balance(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    count = math.isqrt(int(x["x"].dims[-1]))
    if count**2 != x["x"].dims[-1] or not 1 < count <= MAX_STREAMS:
        raise InvariantError(f"balance of {x['x']}: wanted matrices of 2 to {MAX_STREAMS} rows and as many columns")
    if a["rounds"] > MAX_ROUNDS:
        raise InvariantError(f"balance of {x['x']} in {a['rounds']} rounds: wanted at most {MAX_ROUNDS}")
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
