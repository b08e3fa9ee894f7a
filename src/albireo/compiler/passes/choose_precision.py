"""Matrices in few bits: their constants get an encoding, and what they are multiplied with is rounded to fit.

Not one of pipeline.PASSES: it changes what is computed, so it is applied once, to the graph that the others start from
and that an engine directory stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from albireo.compiler.activations import Casts, drop_unread, read_rounded
from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.encodings import encoding
from albireo.graph.node import Graph, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "fewer bits are fewer bytes to read for each token, and 8-bit products are twice as many a cycle"

#: Encoding of a matrix, by its name in the checkpoint and its role; None: as it is.
Choice = Callable[[str, str | None], str | None]


def run(graph: Graph, choose: Choice, weight_only: bool = False, stored: Mapping[str, str] | None = None) -> PassRecord:
    """Args:
    weight_only: what meets e4m3 weights is not to become e4m3 numbers itself, whatever a backend can multiply.
    stored: encodings of matrices as they lie, by name; tables of embeddings among them stay so, too. No others do: what
        they lose by rounding is lost for every token, and a token reads one row.
    """
    rw = Rewriter(graph, "choose_precision", WHY, "quantizes")
    casts: Casts = {}
    for linear in (*rw.nodes("linear"), *rw.nodes("expert_linear")):
        with rw.attempt(linear):
            weight = linear.inputs["weight"]
            name = _chosen(choose, weight, linear.attrs.get("role")) if weight.is_constant else None
            if name is None:
                continue
            if "chunks" in linear.attrs:
                raise NotFired("sums of several ranks are not formed from weights in few bits")
            weight.type = TensorType(name, weight.type.dims)
            if weight_only and encoding(name).kind == "float":
                linear.attrs["keeps"] = encoding(name).activation
            read_rounded(rw, linear, encoding(name).activation, casts)
    _keep_tables(rw, stored or {})
    drop_unread(rw)
    return rw.finish()


def _keep_tables(rw: Rewriter, stored: Mapping[str, str]) -> None:
    """Those that nothing but embeddings reads, of one matrix each."""
    read_otherwise = {value for node in rw.graph.nodes if node.op != "embed" for value in node.inputs.values()}
    for embed in rw.nodes("embed"):
        table = embed.inputs["table"]
        if table.constant is None or table in read_otherwise or len(table.constant.sources) != 1:
            continue
        kind = stored.get(table.constant.sources[0])
        if kind is not None and encoding(kind).kind != "float":
            table.type = TensorType(kind, table.type.dims)


def _chosen(choose: Choice, weight: Value, role: str | None) -> str | None:
    """The encoding of all the matrices that a weight is made of. Raises: NotFired when they are to have several."""
    assert weight.constant is not None
    found = {choose(source, role) for source in weight.constant.sources}
    if len(found) > 1:
        raise NotFired(
            f"its matrices are of several kinds: {', '.join(sorted(str(each or 'numbers') for each in found))}"
        )
    return found.pop()
