"""Matrices in few bits: their constants get an encoding, and what they are multiplied with is rounded to fit.

Not one of pipeline.PASSES: it changes what is computed, so it is applied once, to the graph that the others start from
and that an engine directory stores.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.dtypes import TOKEN
from albireo.encodings import encoding
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "fewer bits are fewer bytes to read for each token, and 8-bit products are twice as many a cycle"

#: Encoding of a matrix, by its name in the checkpoint and whether it is the head; None: as it is.
Choice = Callable[[str, bool], str | None]


def run(graph: Graph, choose: Choice) -> PassRecord:
    rw = Rewriter(graph, "choose_precision", WHY, "quantizes")
    casts: dict[tuple[Value, str], Value] = {}
    for linear in rw.nodes("linear"):
        weight = linear.inputs["weight"]
        name = choose(_source(weight), linear.attrs.get("role") == "vocab") if weight.is_constant else None
        if name is None:
            continue
        with rw.attempt(linear):
            if "chunks" in linear.attrs:
                raise NotFired("sums of several ranks are not formed from weights in few bits")
            weight.type = TensorType(name, weight.type.dims)
            x = _rounded(rw, linear.inputs["x"], encoding(name).activation, casts)
            new = Node("linear", linear.inputs | {"x": x}, dict(linear.attrs), linear.outputs, linear.origin)
            rw.replace((linear,), (new,))
    for node in reversed(graph.nodes):
        is_read = any(rw.users(value) or rw.is_output(value) for value in node.outputs)
        if node.op in ("cast", "gather_rows") and rw.is_alive(node) and not is_read:
            rw.drop(node)
    return rw.finish()


def _source(weight: Value) -> str:
    assert weight.constant is not None
    return weight.constant.sources[0] if len(weight.constant.sources) == 1 else weight.name


def _rounded(rw: Rewriter, x: Value, dtype: str, casts: dict[tuple[Value, str], Value]) -> Value:
    """x rounded to dtype, once for all that read it so; behind a gather of rows, before the gather.

    What a norm computes is rounded once, not first to the compute type: its kernel has the whole row at hand. So is
    what becomes numbers of another type, bfloat16 in a model of float16: no kernel reads the one and writes the other.
    """
    if x.type.dtype == dtype:
        return x
    known = casts.get((x, dtype))
    if known is not None:
        return known
    gather = made_by(x, "gather_rows")
    if gather is not None:
        inside = _rounded(rw, gather.inputs["x"], dtype, casts)
        value = Value(f"{x.name}q", TensorType(dtype, x.type.dims))
        new = Node("gather_rows", gather.inputs | {"x": inside}, {}, (value,), gather.origin)
        rw.insert(new, behind=gather)
    else:
        cast = made_by(x, "cast")
        is_of_norm = cast is not None and made_by(cast.inputs["x"], "rms_norm") is not None
        source = cast.inputs["x"] if cast is not None and (is_of_norm or dtype != TOKEN) else x
        producer = x.producer
        assert producer is not None, "what a linear multiplies is computed"
        value = Value(f"{x.name}q", TensorType(dtype, x.type.dims))
        new = Node("cast", {"x": source}, {"dtype": dtype}, (value,), producer.origin)
        rw.insert(new, behind=producer)
    casts[x, dtype] = value
    return value
