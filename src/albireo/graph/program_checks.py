"""check_program: whether a program is one that backends may take at its word.

Run in tests, and wherever a program comes from outside. What families are told is program_spec.py's. Does not know
kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from albireo.dtypes import KV_CODES, itemsize
from albireo.errors import InvariantError
from albireo.graph.attention_op import (
    SUM_NUMBERS,
    block_problem,
    entries_problem,
    head_width,
    lists_made,
    lists_of,
    result_width,
)
from albireo.graph.node import SYMBOLS
from albireo.graph.op_numbers import (
    CONV_ACTIVATIONS,
    GATES,
    MAX_CONV_WIDTH,
    MAX_DEPTHWISE_WIDTH,
    MAX_GIVEN,
    MAX_ROUNDS,
    MAX_STREAMS,
    RECURRENT,
    SCORES,
)
from albireo.graph.op_types import are_groups
from albireo.graph.program import PANEL, Buffer, Call, PackedConstant, Program, is_gated, weight_rows
from albireo.graph.program_spec import (
    ABLE_KINDS,
    ACTS,
    ALIGNMENT,
    FAMILIES,
    GATE_KINDS,
    KIND_NUMBERS,
    KINDS,
    KINDS_OF_COLUMNS,
    KINDS_OF_TWO,
    MEETINGS,
    NUMBERS_OF_KINDS,
    ROW_KINDS,
    SPLITS,
    STEP_ARRAYS,
    accesses,
    buffer_bytes,
    conflict,
)
from albireo.graph.tuning import BUCKETS


def check_program(program: Program) -> None:
    """Every call has its family's roles and attributes, every name exists, every shape fits.

    Raises: InvariantError naming the call.
    """
    for buffer in program.buffers.values():
        _check_buffer(program, buffer)
    for call in program.calls:
        _check_roles(call)
        _check_args(program, call)
        _check_shapes(program, call)
    for name, buffer_name in program.outputs.items():
        if buffer_name not in program.buffers:
            raise InvariantError(f"output {name} is buffer {buffer_name}, which does not exist")
    _check_barriers(program)


def _check_buffer(program: Program, buffer: Buffer) -> None:
    stop = buffer.offset + buffer_bytes(buffer, program.maxima)
    aligned = itemsize(buffer.dtype) if buffer.within else ALIGNMENT
    if buffer.within and not 0 < buffer.cols < buffer.within:
        raise InvariantError(f"{buffer} is no part of rows of {buffer.within} columns")
    if buffer.offset % aligned or buffer.offset < 0 or stop > program.arena_bytes:
        raise InvariantError(f"{buffer} is not {ALIGNMENT}-byte aligned inside an arena of {program.arena_bytes} bytes")


def _check_roles(call: Call) -> None:
    family = FAMILIES.get(call.family)
    if family is None:
        raise InvariantError(f"unknown family {call.family!r} in {call}")
    known = {*family.inputs, *family.outputs}
    missing = {*family.required, *family.outputs[: family.fewest]} - set(call.args)
    extra = set(call.args) - known
    if missing or extra or set(call.attrs) - set(family.optional_attrs) != set(family.attrs):
        raise InvariantError(
            f"{call}: roles missing {sorted(missing)}, extra {sorted(extra)}; attributes {sorted(call.attrs)}, "
            f"wanted {sorted(family.attrs)}"
        )
    if call.rows not in SYMBOLS or call.split not in SPLITS or not call.kernel:
        raise InvariantError(f"{call}: rows, split or kernel unknown")
    if call.tuning and len(call.tuning) != len(BUCKETS):
        raise InvariantError(f"{call}: has {len(call.tuning)} tunings, wanted none or {len(BUCKETS)}")


def _check_args(program: Program, call: Call) -> None:
    family = FAMILIES[call.family]
    for role, name in call.args.items():
        places = [name in program.buffers, name in program.constants, name in STEP_ARRAYS]
        if sum(places) != 1:
            raise InvariantError(f"{call}: {role}={name} names {sum(places)} things, wanted one")
        if role in family.outputs and not places[0]:
            raise InvariantError(f"{call}: output {role}={name} is not a buffer")
    if ("q_norm" in call.args) != ("k_norm" in call.args):
        raise InvariantError(f"{call}: q_norm and k_norm come together")
    # A buffer written while it is read must be the residual, which each thread reads where it writes.
    written = [program.buffers[call.args[role]] for role in family.outputs if role in call.args]
    for role, name in call.args.items():
        buffer = program.buffers.get(name)
        if buffer is None or role in family.outputs:
            continue
        shared = any(_overlap(program, buffer, out) for out in written)
        if shared and not (role == "residual" and name == call.args["out"]):
            raise InvariantError(f"{call}: {role}={name} shares memory with an output")


def _overlap(program: Program, a: Buffer, b: Buffer) -> bool:
    a_stop, b_stop = (v.offset + buffer_bytes(v, program.maxima) for v in (a, b))
    return a.offset < b_stop and b.offset < a_stop


def _check_shapes(program: Program, call: Call) -> None:
    if call.family == "linear_parts":
        _check_parts(program, call)
    if call.family in ("linear", "linear_norm", "linear_parts", "head_top"):
        weight = _constant(program, call, "weight")
        n, k = call.attrs["n"], call.attrs["k"]
        gated = is_gated(call.attrs.get("act", "none"))
        if call.attrs.get("act", "none") not in ACTS:
            raise InvariantError(f"{call}: act must be one of {ACTS}")
        fits = weight.rows >= 2 * n and weight.rows % PANEL == 0 if gated else weight.rows == n
        if not fits or weight.cols != k or program.buffers[call.args["x"]].cols != k:
            raise InvariantError(f"{call}: does not fit weight {weight.rows} x {weight.cols}")
        if call.family in ("linear", "linear_norm") and program.buffers[call.args["out"]].cols != n:
            raise InvariantError(f"{call}: out is not {n} columns wide")
    if call.family in MEETINGS:
        widths = {program.buffers[call.args[role]].cols for role in ("x", "out")}
        if widths != {call.attrs["n"]} or call.args["x"] == call.args.get("residual") or not call.barrier:
            raise InvariantError(f"{call}: x and out are not {call.attrs['n']} wide, or there is no barrier behind it")
    if "rows" in call.args:
        x = program.buffers[call.args["q" if call.family == "attention" else "x"]]
        out = program.buffers[call.args["out"]]
        # of a rotation or an attention x may be these rows already
        picked = "T" if call.family in ("rope", "attention") and x.rows == call.rows else x.rows
        if STEP_ARRAYS.get(call.args["rows"]) != (call.rows, picked):
            raise InvariantError(f"{call}: {call.args['rows']} does not pick {call.rows} of {x.rows} rows")
        if call.family != "attention" and (x.cols != out.cols or (call.family == "gather" and x.dtype != out.dtype)):
            raise InvariantError(f"{call}: out is not as x")
    if call.family == "attention":
        _check_attention(program, call)
    if call.family == "qkv_rope_kv":
        _check_qkv(program, call)
    fits = _experts_fit(program, call) and _single_op_fits(program, call) and _recurrence_fits(program, call)
    if not fits:
        raise InvariantError(f"{call}: its buffers and constants do not fit each other")
    for role in ("out", "q", "ids", "values", "weights"):
        name = call.args.get(role)
        if name in program.buffers and program.buffers[name].rows != call.rows and not _is_input(call, role):
            raise InvariantError(f"{call}: {role} has {program.buffers[name].rows} rows, the call {call.rows}")


def _check_parts(program: Program, call: Call) -> None:
    """Outputs of a linear in parts are its columns, one behind the other, of the same rows."""
    parts = [program.buffers[call.args[role]] for role in FAMILIES[call.family].outputs if role in call.args]
    end = parts[0].offset
    for part in parts:
        if (part.offset, part.dtype, part.within) != (end, "float32", call.attrs["n"]):
            raise InvariantError(f"{call}: {part} is not where its columns are")
        end += part.cols * itemsize(part.dtype)
    if end != parts[0].offset + call.attrs["n"] * itemsize("float32") or call.attrs["act"] != "none":
        raise InvariantError(f"{call}: its parts are not its {call.attrs['n']} columns")


def _check_attention(program: Program, call: Call) -> None:
    a, cols = call.attrs, {role: program.buffers[call.args[role]].cols for role in ("q", "out")}
    width = result_width(a)
    if ("value_dim" in a) == program.kv.keeps_values(a["layer"]) or not 0 < width <= a["head_dim"]:
        raise InvariantError(f"{call}: values are channels of keys where the cache has none of its own, and only there")
    if (cols["q"], cols["out"]) != (a["num_heads"] * a["head_dim"], a["num_heads"] * head_width(a)):
        raise InvariantError(f"{call}: q and out are not {a['num_heads']} heads wide")
    if a.get("sums") and program.buffers[call.args["out"]].dtype != "float32":
        raise InvariantError(f"{call}: sums are rounded")
    if problem := entries_problem(a, {*call.args}) or _every_problem(program, a):
        raise InvariantError(f"{call}: {problem}")
    if "chosen" in call.args:
        chosen = program.buffers[call.args["chosen"]]
        apart = [name for name in ("window", "both_ways", "causal", "first_key", "num_keys", "slopes") if a.get(name)]
        of_rows = (chosen.rows, chosen.dtype) == ("T", "int32") and chosen.cols % lists_of(a) == 0
        if not of_rows or apart or program.kv.dtype in KV_CODES:
            raise InvariantError(f"{call}: {chosen} does not say of T rows what they see, or something else does, too")
    if "result_dim" in a and ("value_dim" in a or not 0 < a["result_dim"] <= a["head_dim"]):
        raise InvariantError(f"{call}: result_dim={a['result_dim']} is a part of values that are stored")
    if a.get("in_chunks") and (not a["window"] or a.get("both_ways") or "distances" in call.args):
        raise InvariantError(f"{call}: chunks need a length, and rows that see what is before them")
    _check_columns(program, call)


def _every_problem(program: Program, a: Mapping[str, Any]) -> str:
    """What is wrong with what a call says of how many positions have one entry of its layer."""
    if a["layer"] >= program.kv.num_layers:
        return f"the cache has {program.kv.num_layers} layers, none is number {a['layer']}"
    kept = program.kv.every[a["layer"]] if program.kv.every else 1
    return "" if a.get("every", 1) == kept else f"the cache has an entry of every {kept} positions of that layer"


#: Of attention that depends on distances: a table of so many either way is made.
MAX_REACH = 2**20


def _check_columns(program: Program, call: Call) -> None:
    """What a kernel adds to scores by distance: it reads a row for each of q, and for each of the step."""
    roles = [role for role in ("from_rows", "from_keys") if role in call.args]
    if not roles and "reach" not in call.attrs:
        return
    sees_all = call.attrs.get("both_ways") or "from_keys" not in roles
    if "from_rows" not in roles or "reach" not in call.attrs or not sees_all:
        raise InvariantError(f"{call}: from_rows and reach come together, and from_keys where rows see both ways")
    found = [program.buffers.get(call.args[role]) for role in roles]
    buffers = [each for each in found if each is not None and each.dtype == "float32"]
    if len(buffers) < len(roles):
        raise InvariantError(f"{call}: {' and '.join(roles)} are not float32 rows")
    rows, *keys = buffers
    per_head, left = divmod(rows.cols, call.attrs["num_heads"])
    fits = left == 0 and per_head % 2 == 0 and 0 < per_head // 2 <= call.attrs["reach"] <= MAX_REACH
    fits = fits and rows.rows == program.buffers[call.args["q"]].rows
    if not fits or any((each.cols, each.rows) != (rows.cols, "T") for each in keys):
        raise InvariantError(f"{call}: {' and '.join(map(str, buffers))} do not fit q and reach")


def _check_qkv(program: Program, call: Call) -> None:
    weight, kv_heads = _constant(program, call, "weight"), call.attrs["num_kv_heads"]
    heads = call.attrs["num_heads"] + 2 * kv_heads
    if "v_weight" in call.args:
        of_v = _constant(program, call, "v_weight")
        heads -= kv_heads
        if (of_v.rows, of_v.cols) != (kv_heads * call.attrs["head_dim"], weight.cols):
            raise InvariantError(f"{call}: does not fit v_weight {of_v.rows} x {of_v.cols}")
    if weight.rows != heads * call.attrs["head_dim"] or _constant(program, call, "rope").packing != "rope":
        raise InvariantError(f"{call}: does not fit weight {weight.rows} x {weight.cols}, or rope is no table")
    if "v_bias" in call.args and "v_weight" not in call.args:
        raise InvariantError(f"{call}: has a v_bias and no v_weight")


def _experts_fit(program: Program, call: Call) -> bool:
    """Whether a call on rows that are routed has the shapes that go with each other; true for the other families."""
    shapes = {role: program.buffers[name] for role, name in call.args.items() if name in program.buffers}
    a, cols = call.attrs, {role: buffer.cols for role, buffer in shapes.items()}
    if call.family == "route":
        if "chosen" in cols and (cols["chosen"] != a["top_k"] or {*call.args} & {"bias"} or "num_groups" in a):
            return False
        if "gate" in cols and (cols["gate"] != 1 or "shared" not in a):
            return False
        vectors = [_constant(program, call, role) for role in ("bias", "gain") if role in call.args]
        if any((each.rows, each.cols) != (1, cols["x"]) for each in vectors):
            return False
        fits = are_groups(cols["x"], a, "bias" in call.args) and a.get("scores", SCORES[0]) in SCORES
        chosen = cols["ids"] == cols["weights"] == a["top_k"] == program.top_k and shapes["ids"].dtype == "int32"
        return fits and chosen
    if call.family == "expert_linear":
        weight, rows = _constant(program, call, "weight"), {role: shapes[role].rows for role in ("x", "ids", "out")}
        if rows["x"] not in ("T", "P") or (rows["ids"], rows["out"]) != ("T", "P") or a["act"] not in ACTS:
            return False
        fits = (weight.rows, weight.cols) == (a["num_experts"] * weight_rows(int(a["n"]), str(a["act"])), a["k"])
        widths = (cols["x"], cols["out"], cols["ids"])
        return fits and a["top_k"] == program.top_k and widths == (a["k"], a["n"], a["top_k"])
    if call.family in ("combine", "combine_norm"):
        rows = {role: shapes[role].rows for role in shapes}
        if ("ids" in rows) != ("num_experts" in a):
            return False
        if "ids" in rows:
            fits = (rows["x"], rows["ids"], rows["weights"]) == ("T", "T", "T") and shapes["ids"].dtype == "int32"
            return fits and cols["x"] == cols["out"] and cols["ids"] == cols["weights"] == program.top_k
        # of one expert a token there are as many pairs as tokens
        of_pairs = rows["x"] == "P" or (rows["x"] == "T" and program.top_k == 1)
        return of_pairs and rows["weights"] == "T" and cols["weights"] == program.top_k
    if call.family == "depthwise_conv":
        weight = _constant(program, call, "weight")
        fits = weight.cols % 2 == 1 and weight.cols <= MAX_DEPTHWISE_WIDTH and call.rows == "T"
        if "bias" in call.args:
            bias = _constant(program, call, "bias")
            fits = fits and (bias.rows, bias.cols) == (1, weight.rows)
        fits = fits and a.get("activation", CONV_ACTIVATIONS[0]) in CONV_ACTIVATIONS
        return fits and (cols["x"], cols["out"]) == (weight.rows, weight.rows)
    if call.family != "gate_rows":
        return True
    return cols["x"] == cols["out"] and cols["x"] % cols["gate"] == 0 and a.get("kind", GATES[0]) in GATES


def _recurrence_fits(program: Program, call: Call) -> bool:
    """Whether a call that keeps a state has the shapes that go with each other; true for the other families."""
    if call.family not in RECURRENT:
        return True
    a, cols = call.attrs, {role: program.buffers[n].cols for role, n in call.args.items() if n in program.buffers}
    if not 0 <= a["state"] < len(program.states.shapes) or call.rows != "T":
        return False
    shape = program.states.shapes[a["state"]]
    if call.family == "causal_conv":
        weight = _constant(program, call, "weight")
        fits = 1 < weight.cols <= MAX_CONV_WIDTH and shape == (weight.cols - 1, weight.rows)
        fits = fits and a.get("activation", CONV_ACTIVATIONS[0]) in CONV_ACTIVATIONS
        if "bias" in call.args:
            bias = _constant(program, call, "bias")
            fits = fits and (bias.rows, bias.cols) == (1, weight.rows)
        return fits and (cols["x"], cols["out"]) == ((3 if a.get("gated") else 1) * weight.rows, weight.rows)
    if call.family == "pool_rows":
        series, roles = a["series"], {"gates", "places"} & {*call.args}
        fits = series in (1, 2) and a["every"] > 1 and shape == (3 if series == 1 else 9, cols["out"])
        if roles:
            places = _constant(program, call, "places")
            fits = fits and len(roles) == 2 and (places.rows, places.cols) == (a["every"], series * cols["out"])
        return fits and {cols[role] for role in ("x", "gates") if role in cols} == {series * cols["out"]}
    if call.family == "selective_scan":
        speeds, keys = _constant(program, call, "a_log"), shape[0]
        found = {(each.rows, each.cols) for each in (_constant(program, call, role) for role in ("dt_bias", "skip"))}
        fits = shape == (speeds.cols, speeds.rows) and found == {(1, speeds.rows)} and cols["bc"] == 2 * keys
        return fits and {cols[role] for role in ("x", "dt", "out")} == {speeds.rows}
    k_heads, v_heads, k_dim, v_dim = (a[name] for name in ("num_k_heads", "num_v_heads", "k_dim", "v_dim"))
    is_by_channel = call.family == "gated_delta_rule" and "dt" in call.args
    rates = v_heads * k_dim if is_by_channel else v_heads
    widths = {"a_log": v_heads, "dt_bias": rates, "skip": v_heads}
    vectors = {role: _constant(program, call, role) for role in widths if role in call.args}
    fits = shape == (v_heads, k_dim, v_dim) and not v_heads % k_heads
    fits = fits and all((vector.rows, vector.cols) == (1, widths[role]) for role, vector in vectors.items())
    fits = fits and 0 <= a.get("dt_least", 0.0) <= a.get("dt_most", math.inf)
    of_gates = cols.get("dt", rates) == rates
    if call.family == "selective_state":
        of_gates = of_gates and len({"dt", *widths} & {*call.args}) == (0 if "slopes" in a else 4)
    if call.family == "gated_delta_rule":
        of_gates = of_gates and cols["gates"] == (v_heads if is_by_channel else 2 * v_heads)
    return fits and of_gates and (cols["x"], cols["out"]) == (2 * k_heads * k_dim + v_heads * v_dim, v_heads * v_dim)


def _single_op_fits(program: Program, call: Call) -> bool:
    """Whether the widths of a call of a single op agree; true for the other families."""
    cols = {role: program.buffers[name].cols for role, name in call.args.items() if name in program.buffers}
    a = call.attrs
    if call.family == "elementwise":
        numbers = {name for name in NUMBERS_OF_KINDS if name in a}
        found = _constant(program, call, "weight").cols if "weight" in call.args else None
        if found != (cols["x"] if a["kind"] in KINDS_OF_COLUMNS else KIND_NUMBERS.get(a["kind"])):
            return False
        fits = a["kind"] in (*KINDS, *ABLE_KINDS) and ("y" in cols) == (a["kind"] in KINDS_OF_TWO)
        fits = fits and len(set(cols.values())) == 1
        are_right = all(a.get(kind, 1.0) > 0 for kind in ("softcap", "clip", "clip_above", *ABLE_KINDS))
        return fits and numbers == {a["kind"]}.intersection(NUMBERS_OF_KINDS) and are_right
    if call.family == "row_map":
        return a["kind"] in ROW_KINDS and ("y" in cols) == (a["kind"] == ROW_KINDS[0]) and len(set(cols.values())) == 1
    if call.family == "balance":
        count = math.isqrt(cols["x"])
        fits = count**2 == cols["x"] == cols["out"] and 1 < count <= MAX_STREAMS
        return fits and 0 < a["rounds"] <= MAX_ROUNDS and a["eps"] >= 0
    if call.family == "join_sums":
        width, rest = divmod(cols["x"], int(a["num_heads"]))
        fits = not rest and cols["x"] == cols["y"] and cols["out"] == int(a["num_heads"]) * (width - SUM_NUMBERS) > 0
        return fits and _constant(program, call, "sinks").cols == a["num_heads"]
    if call.family == "add_parts":
        width, rest = divmod(cols["x"], int(a["num_parts"]))
        fits = not rest and width > 0 and cols["y"] % width == 0 < cols["y"] and 0 <= a["first"] < a["num_parts"]
        of_coefs = cols.get("coefs", a["num_parts"] * cols["y"] // max(width, 1))
        return fits and cols["x"] == cols["out"] and of_coefs == a["num_parts"] * cols["y"] // width
    if call.family in ("read_streams", "mix_streams"):
        return _streams_fit(program, call, cols)
    if call.family == "head_norm":
        width, rest = divmod(cols["x"], int(a["num_heads"]))
        fits = "weight" not in call.args or _constant(program, call, "weight").cols in (width, cols["x"])
        return fits and not rest and cols["x"] == cols["out"]
    if call.family == "output_gate":
        has_norm = {"weight" in call.args, "eps" in a, "num_heads" in a}
        width = cols["x"]
        if has_norm == {True}:
            count = _constant(program, call, "weight").cols
            # behind the gate each channel has its own weight, before it each of a head
            width = count if a.get("is_behind", False) else int(a["num_heads"]) * count
        if cols["x"] % (2 * int(a.get("num_heads", 1))):
            return False
        return a["kind"] in GATE_KINDS and len(has_norm) == 1 and cols["x"] == cols["gate"] == cols["out"] == width
    if call.family == "rope":
        is_table = _constant(program, call, "rope").packing == "rope"
        vectors = [_constant(program, call, role) for role in ("slope", "start") if role in call.args]
        is_table = is_table and len(vectors) == (2 if "ahead" in a else 0)
        is_table = is_table and all((each.rows, each.cols) == (1, int(a["num_heads"])) for each in vectors)
        if "weight" in call.args:
            is_table = is_table and "eps" in a and _constant(program, call, "weight").cols == a["head_dim"]
        return is_table and cols["x"] == cols["out"] == int(a["num_heads"]) * int(a["head_dim"])
    if call.family == "choose_keys":
        heads, is_weighed = int(a["num_heads"]), "weights" in cols
        fits = (cols["q"], cols.get("weights", heads)) == (heads * int(a["head_dim"]), heads)
        fits = fits and cols["ids"] == int(a["count"]) * lists_made(a) > 0
        fits = fits and not block_problem(a, is_weighed) and not _every_problem(program, a)
        return fits and program.kv.dtype not in KV_CODES and call.rows == "T"
    if call.family == "kv_write":
        widths = {cols[role] for role in ("k", "v") if role in cols}
        fits = ("v" in cols) == program.kv.keeps_values(a["layer"]) and not _every_problem(program, a)
        if {"eps", "rope", "tail"} & {*a, *call.args}:
            return fits and _kv_row_fits(program, call, cols)
        return fits and widths == {int(a["num_kv_heads"]) * int(a["head_dim"])}
    if call.family == "join_heads":
        fits = cols["x"] % int(a["num_heads"]) == cols["y"] % int(a["num_heads"]) == 0
        return fits and cols["out"] == cols["x"] + cols["y"]
    if call.family in ("head_linear", "head_rows"):
        weight, heads = _constant(program, call, "weight"), int(a["num_heads"])
        fits = (weight.rows, weight.cols) == (heads * weight_rows(int(a["n"]), "none"), a["k"])
        if "rope" in call.args:
            table = _constant(program, call, "rope")
            fits = fits and table.packing == "rope" and table.cols * heads == cols["tail"]
        tail = cols.get("tail", 0)
        fits = fits and not tail % (2 * heads)
        return fits and (cols["x"], cols["out"]) == (heads * int(a["k"]), heads * int(a["n"]) + tail)
    if call.family == "two_norms":
        vectors = [_constant(program, call, role) for role in ("weight", "next_weight") if role in call.args]
        fits = len(set(cols.values())) == 1 and all((each.rows, each.cols) == (1, cols["x"]) for each in vectors)
        return fits and ("by" not in call.args or _constant(program, call, "by").cols == 1)
    if call.family in ("given", "add_given", "add_given_norm"):
        width = int(a["width"]) if call.family == "given" else cols["x"]
        return cols["out"] == width and 0 <= int(a["place"]) < MAX_GIVEN
    if call.family == "slice":
        return 0 <= int(a["start"]) <= cols["x"] - cols["out"]
    return call.family != "top" or cols["x"] == int(a["n"])


def _streams_fit(program: Program, call: Call, cols: Mapping[str, int]) -> bool:
    """Of a call that reads residual streams, or writes them."""
    count, a = int(call.attrs["num_parts"]), call.attrs
    if call.family == "mix_streams":
        fits = cols["x"] == cols["out"] == count * cols["y"] and cols["coefs"] == count > 1
        return fits and cols.get("matrix", count * count) == count * count
    widths = {"read": count, "written": count, "mixed": count * count}
    shapes = {name: _constant(program, call, f"{name}_bias") for name in widths}
    fits = all((shape.rows, shape.cols) == (1, widths[name]) for name, shape in shapes.items())
    fits = fits and all(_constant(program, call, f"{name}_scale").cols == 1 for name in widths)
    fits = fits and cols["x"] == count * cols["out"] and cols["y"] == sum(widths.values())
    fits = fits and (cols["coefs"], cols["matrix"]) == (count, count * count) and 1 < count <= MAX_STREAMS
    if "gain" in call.args:
        fits = fits and "norm_eps" in a and _constant(program, call, "gain").cols == cols["out"]
    return fits and 0 < a["rounds"] <= MAX_ROUNDS and min(a["eps"], a["least"]) >= 0


def _kv_row_fits(program: Program, call: Call, cols: Mapping[str, int]) -> bool:
    """Of a kv_write that norms and rotates what it writes."""
    vectors = [_constant(program, call, role) for role in ("weight", "bias") if role in call.args]
    is_right = all((each.rows, each.cols) == (1, cols["k"]) for each in vectors) and (
        "eps" in call.attrs or not vectors
    )
    turned = cols.get("tail", cols["k"])
    if "rope" in call.args:
        table = _constant(program, call, "rope")
        is_right = is_right and table.packing == "rope" and table.cols == turned
    is_right = is_right and "v" not in cols and call.attrs["num_kv_heads"] == 1 and not (turned | cols["k"]) % 2
    return is_right and cols["k"] + cols.get("tail", 0) == call.attrs["head_dim"]


def _is_input(call: Call, role: str) -> bool:
    return role not in FAMILIES[call.family].outputs


def _constant(program: Program, call: Call, role: str) -> PackedConstant:
    constant = program.constants.get(call.args[role])
    if constant is None:
        raise InvariantError(f"{call}: {role}={call.args[role]} is not a constant")
    return constant


def _check_barriers(program: Program) -> None:
    """Calls that may not run at once have a barrier between them that is sure to be met."""
    touched = [accesses(call, program.buffers, program.maxima) for call in program.calls]
    for i, call in enumerate(program.calls):
        for j in range(i + 1, len(program.calls)):
            # T is never zero; a barrier after a call on other rows may be skipped with it.
            previous = program.calls[j - 1]
            if previous.barrier and previous.rows in ("T", call.rows):
                break
            if conflict(touched[i], touched[j]):
                raise InvariantError(f"no barrier between {call} and {program.calls[j]}, which shares memory with it")
