"""What a legal graph is. Checked on entry to the compiler, on exit, and in tests between passes.

check_graph raises on the first thing that is wrong, naming the node. Does not know what a graph is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from albireo.dtypes import COMPUTE_DTYPES, ROW_CODES
from albireo.errors import InvariantError
from albireo.graph.node import SYMBOLS, Graph, Node, TensorType, Value
from albireo.graph.op_numbers import CONV_ACTIVATIONS, GATES, GROUPS, LINEAR_ROLES, MAX_RANKS, SCORES, UNARY_KINDS
from albireo.graph.ops import RopeSpec, infer
from albireo.graph.program_spec import FAMILIES

#: Roles a fused node has beside its family's, because its body needs them and its kernel finds them in the step.
IMPLICIT_ROLES = ("kv", "positions", "slots")


def check_graph(graph: Graph, *, reads_cache: bool = False) -> None:
    """Hold a graph to the rules. Args: reads_cache: another graph wrote the KV cache that it reads.

    1. A value is defined before it is read, once, and names its producer; constants are registered under their name.
    2. Types are what ops.infer says; attributes are known and sensible.
    3. The KV state is one chain: each state is written at most once, each layer once, and attention reads its layer
       after the write; the last state is the output kv.
    4. Outputs are defined. 5. A fused node's body obeys the same rules and computes the node's outputs from its roles.
    6. All layers choose as many experts of a token. 7. Nodes that keep a state number theirs 0, 1, ... in order.

    Raises: InvariantError naming the node and the rule.
    Cost: O(nodes and their bodies).
    """
    _check_nodes(graph)
    _check_kv(graph, is_body=reads_cache)
    counts = {node.attrs["top_k"] for node in graph.nodes if "top_k" in node.attrs}
    if len(counts) > 1:
        raise InvariantError(f"layers choose {sorted(counts)} experts of a token; P pairs are counted by one number")
    states = [node.attrs["state"] for node in graph.recurrent]
    if states != list(range(len(states))):
        raise InvariantError(f"states of sequences are numbered {states}; wanted 0 to {len(states) - 1}, each once")


def _check_nodes(graph: Graph) -> None:
    known = _check_roots(graph)
    for node in graph.nodes:
        for role, value in node.inputs.items():
            if value not in known:
                raise InvariantError(f"{_at(node)}: {role}={value} is not defined before it is read")
        _check_node(node)
        for value in node.outputs:
            if value in known or value.producer is not node or value.constant is not None:
                raise InvariantError(f"{_at(node)}: {value} is defined twice or does not name its producer")
            known.add(value)
    for name, value in graph.outputs.items():
        if value not in known:
            raise InvariantError(f"output {name} = {value} is not defined")


def _check_roots(graph: Graph) -> set[Value]:
    known: set[Value] = set()
    for name, value in graph.inputs.items():
        if value.constant is not None or value.producer is not None:
            raise InvariantError(f"input {name} has a producer or a definition")
        known.add(value)
    for name, value in graph.constants.items():
        definition = value.constant
        if definition is None or value.name != name or value.producer is not None or value in known:
            raise InvariantError(f"constant {name} has no definition, another name or a producer")
        if definition.num_rows != value.type.dims[0]:
            raise InvariantError(f"constant {name} is {value.type}, its segments have {definition.num_rows} rows")
        if definition.is_altered and (
            len(value.type.dims) != 1 or not (math.isfinite(definition.plus) and math.isfinite(definition.factor))
        ):
            raise InvariantError(
                f"constant {name} is {value.type}; only numbers of vectors are altered, by finite ones"
            )
        if definition.columns is not None:
            start, stop = definition.columns
            if not 0 <= start < stop or value.type.dims[1:] != (stop - start,):
                raise InvariantError(f"constant {name} is {value.type}, its columns are {start} to {stop}")
        known.add(value)
    return known


def _check_node(node: Node) -> None:
    if node.op == "fused":
        _check_fused(node)
        return
    if node.body is not None or node.family is not None:
        raise InvariantError(f"{_at(node)}: only a fused node has a body and a family")
    try:
        types = infer(node.op, {role: v.type for role, v in node.inputs.items()}, node.attrs)
    except InvariantError as error:
        raise InvariantError(f"{_at(node)}: {error}") from None
    if types != tuple(v.type for v in node.outputs):
        raise InvariantError(f"{_at(node)}: outputs should be {', '.join(map(str, types))}")
    _check_attrs(node)


def _check_fused(node: Node) -> None:
    body, family = node.body, FAMILIES.get(node.family or "")
    if body is None or family is None:
        raise InvariantError(f"{_at(node)}: a fused node needs a body and a known family")
    extra = set(node.inputs) - {*family.inputs, *IMPLICIT_ROLES}
    missing = set(family.required) - {*node.inputs, *node.attrs}
    attrs = set(node.attrs) - set(family.inputs) - set(family.optional_attrs)
    if extra or missing or attrs != set(family.attrs):
        raise InvariantError(
            f"{_at(node)}: roles missing {sorted(missing)}, extra {sorted(extra)}; attributes {sorted(attrs)}, "
            f"wanted {sorted(family.attrs)}"
        )
    if _types(node.inputs) != _types(body.inputs) or body.constants:
        raise InvariantError(f"{_at(node)}: the body's inputs are not the node's roles")
    if [v.type for v in body.outputs.values()] != [v.type for v in node.outputs]:
        raise InvariantError(f"{_at(node)}: the body's outputs are not the node's")
    _check_nodes(body)
    _check_kv(body, is_body=True)


def _types(values: Mapping[str, Value]) -> dict[str, TensorType]:
    return {name: value.type for name, value in values.items()}


def _check_attrs(node: Node) -> None:
    for name, value in node.attrs.items():
        problem = _attr_problem(node, name, value)
        if problem:
            raise InvariantError(f"{_at(node)}: {name}={value!r} {problem}")


_COUNTS = (
    "width",
    "num_parts",
    "num_experts",
    "top_k",
    "value_dim",
    "result_dim",
    "first_key",
    "num_keys",
    "reach",
    "count",
    "block",
    "nearest",
    "every",
    "series",
    "rounds",
    "ahead",
    *GROUPS,
)
_FLAGS = (
    "renormalize",
    "centered",
    "gated",
    "both_ways",
    "causal",
    "in_chunks",
    "never_given",
    "learns_twice",
    "by_logits",
    "shared",
    "above",
    "own_lists",
    "sums",
    "side_by_side",
    "as_positions",
)


def _attr_problem(node: Node, name: str, value: Any) -> str:
    if name in ("num_k_heads", "num_v_heads", "k_dim", "v_dim"):
        return "" if _is_count(value, 1) else "must be a whole number of at least 1"
    if name in ("num_heads", "num_kv_heads", "head_dim"):
        if not _is_count(value, 1):
            return "must be a whole number of at least 1"
        return _heads_problem(node) if name == "num_heads" else ""
    if name in ("dt_least", "dt_most"):
        return "" if _is_number(value) and value >= 0 else "must be a number of at least 0"
    if name in ("layer", "state", "place", "first"):
        return "" if _is_count(value, 0) else "must be a whole number of at least 0"
    if name == "window":
        return "" if value is None or _is_count(value, 1) else "must be None or a whole number of at least 1"
    if name == "softcap":
        return "" if value is None or (_is_number(value) and value > 0) else "must be None or a number above 0"
    if name in _FLAGS:
        return "" if isinstance(value, bool) else "must be true or false"
    if name == "activation":
        return "" if value in CONV_ACTIVATIONS else f"must be one of {', '.join(CONV_ACTIVATIONS)}"
    if name == "scores":
        return "" if value in SCORES else f"must be one of {', '.join(SCORES)}"
    if name in _COUNTS:
        return "" if _is_count(value, 1) else "must be a whole number of at least 1"
    if name in ("eps", "margin"):
        return "" if _is_number(value) and value >= 0 else "must be a number of at least 0"
    if name in ("most", "most_decay"):
        return "" if _is_number(value) and value > 0 else "must be a number above 0"
    if name in ("scale", "factor", "plus", "least", "deviations"):
        return "" if _is_number(value) else "must be a finite number"
    if name == "slopes":
        is_right = isinstance(value, tuple) and all(_is_number(each) and each > 0 for each in value)
        return "" if is_right else "must be numbers above 0"
    if name == "sizes":
        return "" if all(_is_count(n, 1) for n in value) else "must be whole numbers of at least 1"
    if name == "kind":
        kinds = GATES if node.op == "gate_rows" else UNARY_KINDS
        return "" if value in kinds else f"must be one of {', '.join(kinds)}"
    if name == "dtype":
        known = (*COMPUTE_DTYPES, *ROW_CODES)
        return "" if value in known else f"must be one of {', '.join(known)}"
    if name == "rope":
        return _rope_problem(node, value)
    if name == "role":
        return "" if value in LINEAR_ROLES else f"must be one of {', '.join(LINEAR_ROLES)}"
    if name == "keeps":
        return "" if value in COMPUTE_DTYPES else f"must be one of {', '.join(COMPUTE_DTYPES)}"
    if name in ("chunks", "ranks"):
        return _tree_problem(node, value)
    if name == "modules":
        return _modules_problem(node, value)
    if name == "module_rows":
        is_fit = len(value) == len(node.attrs["modules"]) and all(_is_count(row, 0) for row in value)
        return "" if is_fit else "must be a first row of each module"
    if name == "module_inputs":
        is_fit = _is_count(value[0], 0) and value[1] - value[0] == node.inputs["x"].type.dims[-1]
        return "" if is_fit else "must be as many as there are inputs"
    if name == "max_rank":
        return "" if _is_count(value, 1) else "must be a whole number of at least 1"
    return "is not known to the checker"


def _modules_problem(node: Node, modules: Any) -> str:
    ends = [0, *(end for _, _, end in modules)]
    if not modules or ends[:-1] != [first for _, first, _ in modules] or ends != sorted(set(ends)):
        return "must be parts of a linear, side by side"
    if node.op == "linear" and ("low" not in node.inputs or ends[-1] != node.output.type.dims[-1]):
        return "must be all columns of a linear that has adapters"
    return ""


def _heads_problem(node: Node) -> str:
    heads = node.attrs["num_heads"]
    if node.op == "rms_norm":
        width, weights = (
            node.inputs["x"].type.dims[-1],
            [node.inputs[r] for r in ("weight", "bias") if r in node.inputs],
        )
        fits = isinstance(width, int) and width % heads == 0
        for weight in weights:
            if not fits or weight.type.dims not in ((int(width) // heads,), (width,)):
                return f"does not cut {width} channels into parts of the weight's {list(weight.type.dims)}"
        return "" if fits else f"does not cut {width} channels into equal parts"
    if node.op == "rope":
        width = node.inputs["x"].type.dims[-1]
        return "" if width == heads * node.attrs["head_dim"] else f"heads do not make {width} channels"
    kv_heads = node.attrs.get("num_kv_heads", 1)
    return "" if heads % kv_heads == 0 else f"is not a multiple of {kv_heads} KV heads"


def _tree_problem(node: Node, count: Any) -> str:
    if not _is_count(count, 2) or count > MAX_RANKS or count & (count - 1):
        return f"must be a power of two from 2 to {MAX_RANKS}"
    width = node.inputs["x"].type.dims[-1]
    fits = node.op != "linear" or (isinstance(width, int) and width % (2 * count) == 0)
    return "" if fits else f"does not cut {width} inputs into equal parts of whole pairs"


def _rope_problem(node: Node, rope: Any) -> str:
    if not isinstance(rope, RopeSpec):
        return "is not a RopeSpec"
    pairs = node.attrs["head_dim"] // 2
    return "" if len(rope.inv_freq) == pairs and node.attrs["head_dim"] % 2 == 0 else f"does not have {pairs} pairs"


def _is_count(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_kv(graph: Graph, is_body: bool) -> None:
    """Rule 3. states maps a KV state to the layers written so far, each with the state that wrote it last; a body may
    read what was written before it."""
    has_values: dict[int, bool] = {}
    states: dict[Value, dict[int, Value]] = {v: {} for v in graph.inputs.values() if v.type.dtype == "kv"}
    newest = next(iter(states), None)
    if len(states) > 1:
        raise InvariantError(f"{len(states)} KV states come in, wanted at most one")
    for node in graph.nodes:
        before = node.inputs.get("kv")
        if before is None:
            continue
        layer, after = node.attrs["layer"], next((v for v in node.outputs if v.type.dtype == "kv"), None)
        if after is None:
            if layer not in states[before] and not is_body:
                raise InvariantError(f"{_at(node)}: layer {layer} is read before it is written")
            if newest is not None and states[newest].get(layer) is not states[before].get(layer):
                raise InvariantError(f"{_at(node)}: layer {layer} is read behind another write of it")
            has_own = "value_dim" not in node.attrs
            if "choose_keys" not in (node.op, node.family) and has_values.get(layer, has_own) != has_own:
                raise InvariantError(f"{_at(node)}: values are channels of keys where none are written, and only there")
            continue
        if before is not newest:
            raise InvariantError(f"{_at(node)}: the KV state forks")
        _check_kv_shape(node)
        has_values[layer] = "kv_write" not in (node.op, node.family) or "v" in node.inputs
        states[after], newest = states[before] | {layer: after}, after
    final = graph.outputs.get("kv")
    if final is not None and final is not newest:
        raise InvariantError(f"output kv is {final}, the last state is {newest}")


def _check_kv_shape(node: Node) -> None:
    if node.op != "kv_write":
        return
    width = node.attrs["num_kv_heads"] * node.attrs["head_dim"]
    for role in ("k", "v") if "v" in node.inputs else ("k",):
        if node.inputs[role].type.dims[-1] != width:
            raise InvariantError(f"{_at(node)}: {role} {node.inputs[role].type} is not {width} channels")


def symbol_rows(value: Value) -> str:
    """The step symbol that counts the rows of a value. Raises: InvariantError when dim 0 is a number."""
    rows = value.type.dims[0] if value.type.dims else None
    if rows not in SYMBOLS:
        raise InvariantError(f"{value}: {value.type} is not counted by one of {SYMBOLS}")
    return str(rows)


def _at(node: Node) -> str:
    return f"{node.origin or 'graph'}: {node}"
