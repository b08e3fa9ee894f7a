"""A base graph as JSON and back.

Called by api/build.py and reader.py. Types of values are written for readers and inferred again when read, so that a
file cannot claim one that its ops do not have. Fused nodes are not written: passes run again where a graph is read.
"""

from __future__ import annotations

from typing import Any

from albireo.artifact.record import MAX_COUNT, Record, guarded, number, scalar, slopes
from albireo.dtypes import SIZES
from albireo.encodings import is_encoding
from albireo.errors import Corrupt, InvariantError, short
from albireo.graph.node import SYMBOLS, ConstantDef, Graph, Node, RowSegment, TensorType, Value
from albireo.graph.ops import OPS, Growth, Op, RopeSpec, infer
from albireo.graph.program_spec import Family
from albireo.graph.spec import check_graph

_MAX_DIMS = 4


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Plain data; equal graphs give equal data.

    Raises: InvariantError for a fused node or for two values of one name.
    """
    names = [value.name for value in graph.values()]
    if len(set(names)) != len(names):
        raise InvariantError("two values of a graph have one name; it cannot be written")
    ropes: list[RopeSpec] = []
    return {
        "inputs": [_typed(value) for value in graph.inputs.values()],
        "constants": [_constant(value) for value in graph.constants.values()],
        "nodes": [_node(node, ropes) for node in graph.nodes],
        "outputs": [{"name": name, "value": value.name} for name, value in graph.outputs.items()],
        "ropes": [rope_to_json(rope) for rope in ropes],
    }


def graph_from_json(data: Any, where: str) -> Graph:
    """The graph, checked by graph.spec.check_graph. Raises: Corrupt naming the place."""
    top = Record(data, where)
    ropes = tuple(rope_from_json(record) for record in top.records("ropes"))
    graph, values = Graph(), dict[str, Value]()
    for record in top.records("inputs"):
        value = _define(values, record, None)
        graph.inputs[value.name] = value
    for record in top.records("constants"):
        value = _define(values, record, _segments(record))
        graph.constants[value.name] = value
    for record in top.records("nodes"):
        graph.nodes.append(_read_node(record, values, ropes))
    for name, target in top.pairs("outputs").items():
        graph.outputs[name] = _known(values, target, f"{where}: outputs")
    top.done()
    with guarded(where):
        check_graph(graph)
    return graph


#: Positions that a rotation may tell of: with one of a step they are an int32.
_MOST_POSITIONS = 2**30


def rope_to_json(rope: RopeSpec) -> dict[str, Any]:
    growth = rope.growth
    grows = {} if growth is None else {"growth": [growth.by, growth.period, growth.ahead]}
    behind = {"behind": rope.behind} if rope.behind else {}
    return {"attention_factor": rope.attention_factor, "inv_freq": list(rope.inv_freq), **grows, **behind}


def rope_from_json(record: Record) -> RopeSpec:
    """Raises: Corrupt."""
    inv_freq = tuple(float(number(item, record.where)) for item in record.items("inv_freq"))
    factor = float(number(record.raw("attention_factor"), record.where))
    growth = _read_growth(record) if record.has("growth") else None
    behind = record.count("behind", 1, _MOST_POSITIONS) if record.has("behind") else 0
    record.done()
    if any(abs(item) > 1e30 for item in (*inv_freq, factor)):
        raise Corrupt(f"{record.where}: a frequency is outside what float32 holds")
    return RopeSpec(inv_freq, factor, growth, behind)


def _read_growth(record: Record) -> Growth:
    """Not written where queries do not grow, nor before 2.24."""
    by, *whole = record.items("growth") or [None]
    if len(whole) != 2 or any(type(n) is not int or not 0 <= n <= _MOST_POSITIONS for n in whole) or not whole[0]:
        record.fail("growth", record.items("growth"), "must be a number, a period of at least 1, and a number ahead")
    found = float(number(by, record.where))
    if not 0 <= found <= 1e30:
        record.fail("growth", by, "must be a number of at least 0 that float32 holds")
    return Growth(found, *whole)


def _typed(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.type.dtype, "dims": list(value.type.dims)}


def _constant(value: Value) -> dict[str, Any]:
    definition = value.constant
    if definition is None:
        raise InvariantError(f"{value} is not a constant")
    if definition.columns is not None:
        raise InvariantError(f"{value} is a rank's part; what is written is the graph of the whole model")
    altered: dict[str, Any] = {"plus": definition.plus, "factor": definition.factor}
    altered |= {"is_absolute": True} if definition.is_absolute else {}
    return (
        _typed(value)
        | {"segments": [[s.source, s.start, s.stop] for s in definition.segments]}
        | (altered if definition.is_altered else {})
    )


def _node(node: Node, ropes: list[RopeSpec]) -> dict[str, Any]:
    if node.op not in OPS:
        raise InvariantError(f"{node}: only base ops can be written")
    return {
        "op": node.op,
        "origin": node.origin,
        "inputs": {role: value.name for role, value in node.inputs.items()},
        "attrs": {name: _attr(value, ropes) for name, value in node.attrs.items()},
        "outputs": [_typed(value) for value in node.outputs],
    }


def _attr(value: Any, ropes: list[RopeSpec]) -> Any:
    """A RopeSpec is a place in the table of them: layers share it."""
    if isinstance(value, RopeSpec):
        if value not in ropes:
            ropes.append(value)
        return {"rope": ropes.index(value)}
    return list(value) if isinstance(value, tuple) else value


def _define(values: dict[str, Value], record: Record, constant: ConstantDef | None) -> Value:
    value = Value(record.text("name"), _type(record), constant=constant)
    record.done()
    _add(values, value, record.where)
    return value


def _add(values: dict[str, Value], value: Value, where: str) -> None:
    if value.name in values:
        raise Corrupt(f"{where}: {short(value.name)} is defined twice")
    values[value.name] = value


def _known(values: dict[str, Value], name: str, where: str) -> Value:
    if name not in values:
        raise Corrupt(f"{where}: {short(name)} is not defined before it is read")
    return values[name]


def _type(record: Record) -> TensorType:
    dtype = record.text("dtype")
    if not is_encoding(dtype):
        dtype = record.choice("dtype", (*SIZES, "kv"))
    dims = record.items("dims")
    if len(dims) > _MAX_DIMS or not all(_is_dim(dim) for dim in dims):
        record.fail("dims", dims, f"must be at most {_MAX_DIMS} whole numbers or {', '.join(SYMBOLS)}")
    return TensorType(dtype, tuple(dims))


def _is_dim(dim: Any) -> bool:
    if isinstance(dim, str):
        return dim in SYMBOLS
    return isinstance(dim, int) and not isinstance(dim, bool) and 0 < dim <= MAX_COUNT


def _segments(record: Record) -> ConstantDef:
    segments = []
    for item in record.items("segments"):
        segments.append(RowSegment(*_triple(item, f"{record.where}: segments")))
    # not written where they change nothing, nor before 2.6
    plus, factor = (
        float(number(record.raw(name), record.where)) if name in record.keys() else neutral  # noqa: SIM118
        for name, neutral in (("plus", 0.0), ("factor", 1.0))
    )
    is_absolute = record.flag("is_absolute") if "is_absolute" in record.keys() else False  # noqa: SIM118
    return ConstantDef(tuple(segments), plus=plus, factor=factor, is_absolute=is_absolute)


def _triple(item: Any, where: str) -> tuple[str | None, int, int]:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], (str, type(None))):
        raise Corrupt(f"{where}: {short(item)} must be a tensor name or null, and two row numbers")
    source, start, stop = item
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (start, stop)) or not 0 <= start < stop:
        raise Corrupt(f"{where}: {short(item)} must name rows from a first to a later one")
    if stop > MAX_COUNT:
        raise Corrupt(f"{where}: {short(item)} has too many rows")
    return source, start, stop


def _read_node(record: Record, values: dict[str, Value], ropes: tuple[RopeSpec, ...]) -> Node:
    op = record.choice("op", tuple(OPS))
    rule, given = OPS[op], record.texts("inputs")
    # JSON is sorted; the op's own order is the canonical one.
    order = [role for role in (*rule.required, *rule.optional) if role in given]
    if len(order) != len(given):
        record.fail("inputs", given, f"has a role that {op} does not have")
    inputs = {role: _known(values, given[role], record.where) for role in order}
    attrs = _read_attrs(record.record("attrs"), rule, ropes)
    node = Node(op, inputs, attrs, origin=record.text("origin"))
    claimed = [_read_output(item) for item in record.records("outputs")]
    record.done()
    with guarded(record.where):
        types = infer(op, {role: value.type for role, value in inputs.items()}, attrs)
    if [type_ for _, type_ in claimed] != list(types):
        raise Corrupt(f"{record.where}: outputs should be {', '.join(map(str, types))}")
    node.outputs = tuple(Value(name, type_, producer=node) for name, type_ in claimed)
    for value in node.outputs:
        _add(values, value, record.where)
    return node


def _read_output(record: Record) -> tuple[str, TensorType]:
    found = record.text("name"), _type(record)
    record.done()
    return found


def present(rule: Op | Family, record: Record) -> tuple[str, ...]:
    """Attributes to read: the required ones, and those of the optional that are there."""
    return (*rule.attrs, *(name for name in rule.optional_attrs if name in record.keys()))  # noqa: SIM118


def _read_attrs(record: Record, rule: Op, ropes: tuple[RopeSpec, ...]) -> dict[str, Any]:
    attrs = {
        name: slopes(record.raw(name), record.where)
        if name == "slopes"
        else _read_attr(record.raw(name), record.where, ropes)
        for name in present(rule, record)
    }
    record.done()
    return attrs


def _read_attr(value: Any, where: str, ropes: tuple[RopeSpec, ...]) -> Any:
    if isinstance(value, dict):
        record = Record(value, where)
        index = record.count("rope", 0, len(ropes) - 1)
        record.done()
        return ropes[index]
    if isinstance(value, list):
        return tuple(_whole(item, where) for item in value)
    return scalar(value, where)


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_COUNT:
        raise Corrupt(f"{where}: {short(value)} must be a whole number of at least 1")
    return value
