"""Every op that is part of no other kernel becomes a call of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from albireo.compiler.rewrite import NotFired, Rewriter, adapter_attrs, body_of, linear_roles, norm_attrs
from albireo.compiler.softcap_pattern import match_softcap
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program_spec import KINDS
from albireo.graph.report import PassRecord

WHY = "an op that no kernel took is a pass over memory of its own; without its call the model would not run"

#: Family, attributes and roles of the call that an op alone becomes.
Single = tuple[str, dict[str, Any], dict[str, Value | None]]


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "single_ops", WHY, "exact")
    for scale in rw.nodes("scale"):
        _softcap(rw, scale)
    for op in ("clamp", "xielu"):
        for node in rw.nodes(op):
            with rw.attempt(node):
                _rounded(rw, node)
    for op, single in SINGLES.items():
        for node in rw.nodes(op):
            with rw.attempt(node):
                family, attrs, roles = single(node)
                rw.fuse((node,), family, attrs, roles, node.outputs)
    for split in rw.nodes("split"):
        _slices(rw, split)
    return rw.finish()


def _linear(node: Node) -> Single:
    n, k = node.inputs["weight"].type.dims
    chunks = {name: node.attrs[name] for name in ("chunks",) if name in node.attrs}
    return "linear", {"n": n, "k": k, "act": "none"} | chunks | adapter_attrs(node), linear_roles(node)


def _adapter(node: Node) -> Single:
    return "adapter", dict(node.attrs), dict(node.inputs)


def _expert_linear(node: Node) -> Single:
    attrs = {name: node.attrs[name] for name in ("num_experts", "top_k")}
    n, k = node.output.type.dims[1], node.inputs["weight"].type.dims[1]
    return "expert_linear", {"n": n, "k": k, "act": "none", **attrs}, dict(node.inputs)


def _head_linear(node: Node) -> Single:
    (rows, k), heads = node.inputs["weight"].type.dims, node.attrs["num_heads"]
    return "head_linear", {"n": int(rows) // heads, "k": k, "num_heads": heads}, dict(node.inputs)


def _join_heads(node: Node) -> Single:
    for role in node.inputs:
        _require_float32(node, role)
    return "join_heads", dict(node.attrs), dict(node.inputs)


def _route(node: Node) -> Single:
    _require_float32(node, "x")
    return "route", dict(node.attrs), dict(node.inputs)


def _of_rows(node: Node) -> Single:
    for role in node.inputs.keys() - {"ids"}:
        _require_float32(node, role)
    return node.op, dict(node.attrs), dict(node.inputs)


def _recurrent(node: Node) -> Single:
    return node.op, dict(node.attrs), dict(node.inputs)


def _given(node: Node) -> Single:
    return "given", dict(node.attrs), {}


def _add_given(node: Node) -> Single:
    _require_float32(node, "x")
    return "add_given", dict(node.attrs), dict(node.inputs)


def _norm(node: Node) -> Single:
    _require_float32(node, "x")
    if node.attrs["num_heads"] == 1:
        return "norm", norm_attrs(node), dict(node.inputs)
    if "bias" in node.inputs:
        raise NotFired("the kernel norms heads with no bias")
    return "head_norm", dict(node.attrs), dict(node.inputs)


def _rope(node: Node) -> Single:
    _require_float32(node, "x")
    _require_rows(node, "x", "S" if "rows" in node.inputs else "T")
    return "rope", dict(node.attrs), dict(node.inputs)


def _kv_write(node: Node) -> Single:
    for role in node.inputs.keys() & {"k", "v"}:
        _require_float32(node, role)
        _require_rows(node, role, "T")
    return "kv_write", dict(node.attrs), dict(node.inputs)


def _choose_keys(node: Node) -> Single:
    return "choose_keys", dict(node.attrs), dict(node.inputs)


def _attention(node: Node) -> Single:
    _require_rows(node, "q", "S" if "rows" in node.inputs else "T")
    # in a program, 0 stands for no window and no cap
    attrs = node.attrs | {name: node.attrs[name] or zero for name, zero in (("window", 0), ("softcap", 0.0))}
    return "attention", attrs, dict(node.inputs)


def _elementwise(node: Node) -> Single:
    if node.output.type.dtype not in ROW_CODES:
        for role in node.inputs:
            _require_float32(node, role)
    kind = node.attrs["kind"] if node.op == "unary" else node.op
    if kind == "tanh":
        return "elementwise", {"kind": "softcap", "softcap": 1.0}, dict(node.inputs)
    if kind not in KINDS:
        raise NotFired(f"no kernel does {kind}; known: {', '.join(KINDS)}")
    return "elementwise", {"kind": kind}, dict(node.inputs)


def _add_parts(node: Node) -> Single:
    for role in node.inputs:
        _require_float32(node, role)
    return "add_parts", dict(node.attrs), dict(node.inputs)


def _row_map(node: Node) -> Single:
    for role in node.inputs:
        _require_float32(node, role)
    (number,) = node.attrs.values()
    return "row_map", {"kind": node.op, "number": number}, dict(node.inputs)


def _balance(node: Node) -> Single:
    _require_float32(node, "x")
    return "balance", dict(node.attrs), dict(node.inputs)


def _scale(node: Node) -> Single:
    _require_float32(node, "x")
    return "elementwise", {"kind": "scale", "scale": node.attrs["factor"]}, dict(node.inputs)


def _clip(node: Node) -> Single:
    _require_float32(node, "x")
    kind = "clip_above" if node.attrs.get("above") else "clip"
    return "elementwise", {"kind": kind, kind: node.attrs["most"]}, dict(node.inputs)


def _by_numbers(node: Node) -> Single:
    _require_float32(node, "x")
    return "elementwise", {"kind": node.op}, dict(node.inputs)


def _depthwise_conv(node: Node) -> Single:
    _require_float32(node, "x")
    return "depthwise_conv", dict(node.attrs), dict(node.inputs)


def _top(node: Node) -> Single:
    logits = node.inputs["logits"]
    _require_rows(node, "logits", "G")
    return "top", {"n": logits.type.dims[1]}, {"x": logits}


#: Op -> how it becomes a call. Gathers and embeddings have passes of their own, splits are below.
SINGLES: dict[str, Callable[[Node], Single]] = {
    "given": _given,
    "add_given": _add_given,
    "linear": _linear,
    "expert_linear": _expert_linear,
    "route": _route,
    "combine": _of_rows,
    "gate_rows": _of_rows,
    "head_linear": _head_linear,
    "join_heads": _join_heads,
    "adapter": _adapter,
    "causal_conv": _recurrent,
    "depthwise_conv": _depthwise_conv,
    "gated_delta_rule": _recurrent,
    "selective_state": _recurrent,
    "selective_scan": _recurrent,
    "rms_norm": _norm,
    "rope": _rope,
    "kv_write": _kv_write,
    "choose_keys": _choose_keys,
    "attention": _attention,
    "cast": _elementwise,
    "unary": _elementwise,
    "add": _elementwise,
    "mul": _elementwise,
    "clamped_swiglu": _elementwise,
    "scale": _scale,
    "scale_by": _by_numbers,
    "clip": _clip,
    "clamp": _by_numbers,
    "xielu": _by_numbers,
    "gain": _by_numbers,
    "pool_rows": _recurrent,
    "join_sums": _of_rows,
    "balance": _balance,
    "shift": _by_numbers,
    "add_parts": _add_parts,
    "match_length": _row_map,
    "cut": _row_map,
    "top_logits": _top,
}


def _softcap(rw: Rewriter, scale: Node) -> None:
    """Three ops that are one kind of call."""
    found = match_softcap(scale.output)
    if found is None or found.x.type.dtype != "float32" or any(len(rw.users(n.output)) > 1 for n in found.nodes[:-1]):
        return
    rw.fuse(found.nodes, "elementwise", {"kind": "softcap", "softcap": found.cap}, {"x": found.x}, scale.outputs)


def _rounded(rw: Rewriter, node: Node) -> None:
    """With the rounding behind it: what is written is rounded anyway."""
    cast = rw.only(node.output, "cast")
    if cast is not None and cast.output.type.dtype not in ROW_CODES:
        rw.fuse((node, cast), "elementwise", {"kind": node.op}, dict(node.inputs), cast.outputs)


def _slices(rw: Rewriter, split: Node) -> None:
    """A copy for each part: a buffer has one width."""
    new, start = [], 0
    for part, size in zip(split.outputs, split.attrs["sizes"], strict=True):
        if rw.users(part) or rw.is_output(part):
            body = body_of([split], split.inputs, (part,))
            inputs = dict(split.inputs)
            new.append(Node("fused", inputs, {"start": start}, (part,), split.origin, body=body, family="slice"))
        start += size
    rw.replace((split,), new)


def _require_float32(node: Node, role: str) -> None:
    dtype = node.inputs[role].type.dtype
    if dtype != "float32":
        raise NotFired(f"{role} is {dtype}, the kernel reads float32")


def _require_rows(node: Node, role: str, symbol: str) -> None:
    rows = node.inputs[role].type.dims[0]
    if rows != symbol:
        raise NotFired(f"{role} has {rows} rows, the kernel works on {symbol}")
