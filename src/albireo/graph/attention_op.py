"""Types of attention, of what chooses positions for it and makes entries of several, and of one attention of two: which
inputs and attributes go together.

Called by ops.py, which has the list of both.
"""

from __future__ import annotations

from collections.abc import Collection

from albireo.errors import InvariantError
from albireo.graph.node import Attrs, TensorType, Types


def check_rows(x: Types, role: str) -> None:
    """Where an op is told which rows of the step its own are."""
    if "rows" in x and x["rows"].dims != x[role].dims[:1]:
        raise InvariantError(f"{role} {x[role]} has other rows than {x['rows']}")


def attention(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    """What comes out. Raises: InvariantError for inputs or attributes that do not go together."""
    q = x["q"]
    check_rows(x, "q")
    if q.dims[-1] != a["num_heads"] * a["head_dim"]:
        raise InvariantError(f"attention query {q} is not {a['num_heads']} heads of {a['head_dim']}")
    if "sinks" in x and x["sinks"] != TensorType("float32", (a["num_heads"],)):
        raise InvariantError(f"attention sinks {x['sinks']} are not one of each of {a['num_heads']} heads")
    if "distances" in x:
        table = x["distances"]
        if len(table.dims) != 2 or int(table.dims[0]) % 2 == 0 or table.dims[1] != a["num_heads"] or a["softcap"]:
            raise InvariantError(
                f"attention distances {table}: wanted an odd number for each head, and scores not capped"
            )
    _check_columns(x, a)
    if "chosen" in x:
        _check_chosen(x["chosen"], a)
    if problem := entries_problem(a, {*x}):
        raise InvariantError(f"attention {problem}")
    if "in_chunks" in a:
        apart = [name for name in ("both_ways", "first_key", "slopes") if a.get(name)]
        apart += [role for role in ("distances",) if role in x]
        if not a["window"] or apart:
            raise InvariantError(
                f"attention in chunks of window={a['window']}: wanted how long they are, and nothing else that says "
                f"what rows see or adds to scores; there is {', '.join(apart) or 'nothing'}"
            )
    apart = [name for name in ("window", "both_ways", "causal", "first_key") if a.get(name)]
    if "num_keys" in a and apart:
        raise InvariantError(
            f"attention of num_keys={a['num_keys']} has {', '.join(apart)}, too: its rows see the same positions"
        )
    if "slopes" in a:
        apart = [name for name in ("both_ways", "num_keys", "softcap") if a.get(name)]
        apart += ["distances"] if "distances" in x else []
        if apart or len(a["slopes"]) != a["num_heads"]:
            raise InvariantError(
                f"attention of {len(a['slopes'])} slopes: wanted one for each of {a['num_heads']} heads, of causal "
                f"rows, and nothing else that is done to scores; there is {', '.join(apart) or 'nothing'}"
            )
    if "first_key" in a and a.get("both_ways"):
        raise InvariantError(f"attention of first_key={a['first_key']} is both ways, too; it must be one of them")
    width = result_width(a)
    if not 0 < width <= a["head_dim"] or ("value_dim" in a and "result_dim" in a):
        raise InvariantError(f"attention values are {width} channels beside keys of {a['head_dim']}: {dict(a)}")
    return (TensorType("float32", (*q.dims[:-1], a["num_heads"] * head_width(a))),)


#: The largest exponent of a row that sees nothing: below every score, and finite.
NOTHING_SEEN = -1e30
#: Behind the channels of each head, where sums are given: the largest exponent, and the sum of powers.
SUM_NUMBERS = 2


def head_width(a: Attrs) -> int:
    """Numbers that an attention gives of each head."""
    return result_width(a) + (SUM_NUMBERS if a.get("sums") else 0)


def entries_problem(a: Attrs, roles: Collection[str]) -> str:
    """What is wrong with what an attention says of entries of several positions, or of sums, if anything."""
    if a.get("sums") and ("value_dim" not in a or "sinks" in roles):
        return "gives sums: wanted values that are channels of keys, and no sinks"
    every = a.get("every")
    if every is None:
        return ""
    names = ("window", "both_ways", "causal", "first_key", "num_keys", "slopes", "in_chunks", "own_lists")
    apart = [name for name in names if a.get(name)]
    apart += [role for role in ("distances", "from_rows", "sinks") if role in roles]
    if every < 2 or every & (every - 1) or "value_dim" not in a or apart:
        return (
            f"of entries of every={every} positions: wanted a power of two, values that are channels of keys, and "
            f"nothing that tells positions apart; there is {', '.join(apart) or 'nothing'}"
        )
    return ""


def result_width(a: Attrs) -> int:
    """Channels of what an attention gives of each head."""
    return int(a.get("value_dim", a.get("result_dim", a["head_dim"])))


def _check_columns(x: Types, a: Attrs) -> None:
    """What is added to scores of attention by rows and positions."""
    said = [name for name in ("from_rows", "from_keys") if name in x] + (["reach"] if "reach" in a else [])
    if not said:
        return
    apart = [name for name in ("distances", "slopes", "num_keys") if x.get(name) or a.get(name)]
    # of what positions add, a step needs that of all of them
    sees_all = a.get("both_ways") or "from_keys" not in x
    if "from_rows" not in x or "reach" not in a or apart or not sees_all:
        raise InvariantError(
            f"attention has {', '.join(said)}: wanted from_rows and reach, from_keys for rows that see both ways "
            f"alone, and nothing else that is added to scores; there is {', '.join(apart) or 'nothing'}"
        )
    rows, keys = x["from_rows"], x.get("from_keys", x["from_rows"])
    width = int(rows.dims[-1])
    if rows.dims[0] != x["q"].dims[0] or rows.dims[1:] != keys.dims[1:] or width % (2 * a["num_heads"]):
        raise InvariantError(f"attention adds {rows} and {keys}: wanted an even number of columns of each head, alike")
    if a["reach"] < width // (2 * a["num_heads"]):
        raise InvariantError(f"attention of reach={a['reach']} has more columns than distances")


def _check_chosen(chosen: TensorType, a: Attrs) -> None:
    """Positions that rows of an attention see, and nothing else that says which those are."""
    lists = lists_of(a)
    if chosen.dtype != "int32" or len(chosen.dims) != 2 or chosen.dims[0] != "T" or int(chosen.dims[1]) % lists:
        raise InvariantError(
            f"attention of chosen positions {chosen}: wanted int32, as many for each of T rows, in {lists} lists"
        )
    apart = [name for name in ("window", "both_ways", "causal", "first_key", "num_keys", "slopes") if a.get(name)]
    if apart:
        raise InvariantError(f"attention of chosen positions has {', '.join(apart)}, too, which says what rows see")


def lists_of(a: Attrs) -> int:
    """Lists of chosen positions that an attention reads."""
    return int(a["num_kv_heads"]) if a.get("own_lists") else 1


def choose_keys(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    """As attention()."""
    q, heads, weights = x["q"], a["num_heads"], x.get("weights")
    if q.dims != ("T", heads * a["head_dim"]) or weights not in (None, TensorType("float32", ("T", heads))):
        raise InvariantError(
            f"choose_keys of {q} weighed by {weights}: wanted {heads} heads of {a['head_dim']}, and a weight each"
        )
    if a["count"] < 1:
        raise InvariantError(f"choose_keys of {a['count']} positions: wanted at least one")
    every = a.get("every", 2)
    if every < 2 or every & (every - 1) or ("every" in a and "block" in a):
        raise InvariantError(f"choose_keys among entries of {every} positions: wanted a power of two, and no blocks")
    if problem := block_problem(a, weights is not None):
        raise InvariantError(f"choose_keys of {a['count']} positions {problem}")
    return (TensorType("int32", ("T", a["count"] * lists_made(a))),)


def lists_made(a: Attrs) -> int:
    """Lists that a choose_keys gives of each row."""
    return int(a["num_heads"]) if "block" in a else 1


def keys_taken(a: Attrs) -> int:
    """Keys that a choose_keys takes of each row at most, or entries."""
    every = int(a["every"]) if a.get("as_positions") else 1
    return (int(a["count"]) - every + 1) // every


def block_problem(a: Attrs, has_weights: bool) -> str:
    """What is wrong with what is said of blocks, or of entries as positions, if anything. Args: a: of a
    choose_keys."""
    block, nearest = a.get("block"), a.get("nearest")
    if a.get("as_positions"):
        every, rest = a.get("every", 0), int(a["count"]) + 1
        if not every or rest % every or rest <= every:
            return f"of entries of every={every}: wanted whole entries, and {every - 1} behind them that have none"
    if block is None or nearest is None or has_weights:
        is_said = block is not None or nearest is not None
        return "has weights, or blocks and how many are always chosen: one of both" if is_said else ""
    if block < 1 or a["count"] % block or not 1 <= nearest <= a["count"] // block:
        return f"in blocks of {block}, of which the last {nearest} are always chosen"
    return ""


def pool_rows(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    """As attention()."""
    rows, series, every = x["x"], a["series"], a["every"]
    width, rest = divmod(int(rows.dims[-1]), max(series, 1))
    gates, places = x.get("gates", rows), x.get("places")
    if rows.dims[0] != "T" or series not in (1, 2) or rest or gates != rows or every < 2 or every & (every - 1):
        raise InvariantError(
            f"pool_rows of {rows} by {gates}, {series} series, every={every}: wanted T rows and as many gates, of "
            "one series of channels or of two, and a power of two"
        )
    if ("gates" in x) != (places is not None) or places not in (None, TensorType("float32", (every, series * width))):
        raise InvariantError(
            f"pool_rows: places {places} of gates {x.get('gates')} are not {every} rows of {series * width} numbers"
        )
    return (TensorType("float32", ("T", width)),)


def join_sums(x: Types, a: Attrs) -> tuple[TensorType, ...]:
    """As attention()."""
    rows, heads = x["x"], a["num_heads"]
    width, rest = divmod(int(rows.dims[-1]), max(heads, 1))
    if x["y"] != rows or rest or width <= SUM_NUMBERS or x["sinks"] != TensorType("float32", (heads,)):
        raise InvariantError(f"join_sums of {rows} and {x['y']}, sinks {x['sinks']}: wanted {heads} heads with sums")
    return (TensorType("float32", (rows.dims[0], heads * (width - SUM_NUMBERS))),)
