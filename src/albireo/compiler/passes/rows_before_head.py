"""Take the rows the head needs before the ops in front of it, not after: those ops work row by row."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "the final norm is needed for the rows that get logits only, of a prompt usually one"

#: Ops whose row i depends on row i of x alone. Linears are not moved: two row sets would read their weights twice.
ROW_WISE = ("cast", "rms_norm", "scale", "unary")


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "rows_before_head", WHY, "exact")
    for gather in rw.nodes("gather_rows"):
        chain = _row_wise_chain(gather)
        if chain:
            with rw.attempt(gather):
                _move(rw, chain, _gathers(rw, chain))
    return rw.finish()


def _row_wise_chain(gather: Node) -> list[Node]:
    """Row-wise ops in front of a gather, first one first."""
    chain: list[Node] = []
    node = gather.inputs["x"].producer
    while node is not None and node.op in ROW_WISE:
        chain.insert(0, node)
        node = node.inputs["x"].producer
    return chain


def _gathers(rw: Rewriter, chain: list[Node]) -> list[Node]:
    """All readers of the chain's end. Raises: NotFired when the chain is needed for all rows."""
    for node in chain[:-1]:
        rw.sole_user(node.output)
    end = chain[-1].output
    gathers = rw.users(end)
    others = [node for node in gathers if node.op != "gather_rows"]
    if others or rw.is_output(end):
        raise NotFired(f"{end} is needed for all rows, by {others[0].op if others else 'an output'}")
    return gathers


def _move(rw: Rewriter, chain: list[Node], gathers: list[Node]) -> None:
    source = chain[0].inputs["x"]
    new: list[Node] = []
    for gather in gathers:
        rows = gather.inputs["rows"]
        value = Value(f"{gather.output.name}g", TensorType(source.type.dtype, _dims(source, rows)))
        new.append(Node("gather_rows", {"x": source, "rows": rows}, {}, (value,), gather.origin))
        for node in chain:
            type_ = TensorType(node.output.type.dtype, value.type.dims)
            out = gather.output if node is chain[-1] else Value(f"{value.name}.", type_)
            new.append(Node(node.op, node.inputs | {"x": value}, dict(node.attrs), (out,), node.origin))
            value = out
    rw.saves(*(node.output for node in chain))
    rw.replace([*chain, *gathers], new, at="first")


def _dims(source: Value, rows: Value) -> tuple[int | str, ...]:
    return (rows.type.dims[0], *source.type.dims[1:])
