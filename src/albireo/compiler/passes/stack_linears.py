"""Small linears of one input become one, where nothing is fused with any of them: each gives some of its columns.

Those that adapters may be of stay apart from others, so that a program with adapters has the same matrices.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from albireo.compiler.passes.add_adapters import modules_of
from albireo.compiler.rewrite import NotFired, Rewriter, merge_linears
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program_spec import ACTS, MOST_PARTS
from albireo.graph.report import PassRecord

WHY = "a launch for several, each of which was too small to fill a GPU: they read their input at once"

#: What stands between a linear and the cache that keys and values are written to by the kernel of all three.
_TO_CACHE = ("split", "rms_norm", "rope", "cast", "scale")


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "stack_linears", WHY, "reorder")
    linears = list(rw.nodes("linear"))
    times = Counter(
        segment.source
        for linear in linears
        if (constant := linear.inputs["weight"].constant) is not None
        for segment in constant.segments
    )
    groups: dict[Any, list[Node]] = {}
    for linear in linears:
        weight = linear.inputs["weight"]
        if _is_alone(rw, linear):
            key = linear.inputs["x"], weight.type.dtype, weight.type.dims[1], _may_adapt(linear, times)
            groups.setdefault(key, []).append(linear)
    for group in groups.values():
        for first in range(0, len(group), MOST_PARTS):
            some = group[first : first + MOST_PARTS]
            if len(some) > 1:
                with rw.attempt(*some):
                    merge_linears(rw, some, role=None if _may_adapt(some[0], times) else "router")
    return rw.finish()


def _is_alone(rw: Rewriter, linear: Node) -> bool:
    """Whether it becomes a kernel with nothing else."""
    weight, y = linear.inputs["weight"].constant, linear.output
    if {*linear.inputs} != {"x", "weight"} or weight is None or weight.columns is not None or "chunks" in linear.attrs:
        return False
    if rw.is_output(y) or y.type.dims[0] not in ("T", "S"):
        return False
    return all(_is_apart(rw, user) for user in rw.users(y)) and not _leads_to_cache(rw, y)


def _is_apart(rw: Rewriter, user: Node) -> bool:
    """Whether this reader is no part of a linear's own kernel."""
    if user.op == "unary":
        return user.attrs["kind"] not in ACTS
    if user.op == "cast":  # which matrices of heads do themselves, see fuse_head_rows
        readers = rw.users(user.output)
        return [reader.op for reader in readers] == ["head_linear"] and _is_joined(rw, readers[0])
    return user.op not in ("add", "split", "all_reduce", "top_logits")


def _is_joined(rw: Rewriter, linear: Node) -> bool:
    return [user.op for user in rw.users(linear.output)] == ["join_heads"]


def _leads_to_cache(rw: Rewriter, y: Value) -> bool:
    users = rw.users(y)
    if any(user.op == "kv_write" and "v" in user.inputs for user in users):
        return True
    return any(_leads_to_cache(rw, user.output) for user in users if user.op in _TO_CACHE and len(user.outputs) == 1)


def _may_adapt(linear: Node, times: Counter[Any]) -> bool:
    """As add_adapters sees it."""
    try:
        modules = modules_of(linear)
    except NotFired:
        return False
    return all(times[f"{name}.weight"] == 1 for name, _, _ in modules)
