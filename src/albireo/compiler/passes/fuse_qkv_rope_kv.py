"""The merged q, k, v linear with its bias, head norms, rotation, rounding and the write to the KV cache: one kernel.

Where v is held in another encoding than q and k, its own linear goes into the kernel beside the merged one of q and k.
"""

from __future__ import annotations

from typing import Any

from albireo.compiler.qkv_pattern import Chain, Qkv, around, match_qkv
from albireo.compiler.rewrite import NotFired, Rewriter, adapter_attrs, linear_roles, made_by
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "q, k and v are normed, rotated and stored while they are in registers or cache, not in three more passes"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_qkv_rope_kv", WHY, "exact")
    for write in rw.nodes("kv_write"):
        with rw.attempt(*around(rw, write)):
            fuse(rw, match_qkv(rw, write))
    return rw.finish()


def fuse(rw: Rewriter, qkv: Qkv, norms_v: bool = False) -> None:
    """Args: norms_v: heads of v are normed, as the kernel can that is asked. Raises: NotFired."""
    linears = _linears(rw, qkv)
    if any("chunks" in linear.attrs for linear in linears):
        raise NotFired("the kernel adds products as one chain, not as a tree")
    linear = linears[0]
    if len(linears) > 1 and any("modules" in each.attrs for each in linears):
        raise NotFired("the kernel knows adapters of one linear, and v has its own")
    ropes, norms = _pair(qkv, "rope"), _pair(qkv, "norm")
    if not ropes or (qkv.v.norm is not None) != norms_v or qkv.v.rope is not None:
        raise NotFired("the kernel rotates q and k, and neither norms nor rotates v")
    attrs = _attrs(qkv, ropes, norms) | adapter_attrs(linear)
    if qkv.v.norm is not None:
        _check_norm_of_v(qkv.v.norm, attrs)
        attrs["norms_v"] = True
    _check_types(linear, qkv)
    roles = linear_roles(linear)
    for of_v in linears[1:]:
        roles |= {"v_weight": of_v.inputs["weight"], "v_bias": of_v.inputs.get("bias")}
    if norms:
        roles |= {"q_norm": norms[0].inputs["weight"], "k_norm": norms[1].inputs["weight"]}
    roles |= {"positions": ropes[0].inputs["positions"], "kv": qkv.write.inputs["kv"]}
    split = rw.sole_user(linear.output)
    members = [*linears, split, *qkv.q.nodes, *qkv.k.nodes, *qkv.v.nodes, qkv.write]
    rw.fuse(members, "qkv_rope_kv", attrs, roles, (qkv.q.end, qkv.write.output))


def _linears(rw: Rewriter, qkv: Qkv) -> tuple[Node, ...]:
    """The linear of q, k and v; or that of q and k, and that of v. Each is read by what makes them alone."""
    split = made_by(qkv.q.source, "split")
    linear = made_by(split.inputs["x"], "linear") if split is not None else None
    if split is None or linear is None or split.outputs not in (qkv.sources, qkv.sources[:2]):
        raise NotFired("q, k, v are not the parts of one linear")
    rw.sole_user(linear.output)
    if split.outputs == qkv.sources:
        return (linear,)
    of_v = made_by(qkv.v.source, "linear")
    if of_v is None or of_v.inputs["x"] is not linear.inputs["x"] or linear.inputs["x"].type.dtype not in ROW_CODES:
        raise NotFired("v is no linear of the same 8-bit input as q and k")
    return linear, of_v


def _pair(qkv: Qkv, name: str) -> tuple[Node, Node] | tuple[()]:
    """The op of q and of k; both or none."""
    q, k = getattr(qkv.q, name), getattr(qkv.k, name)
    if (q is None) != (k is None):
        raise NotFired(f"only one of q and k has a {name}")
    return () if q is None else (q, k)


def _attrs(qkv: Qkv, ropes: tuple[Node, ...], norms: tuple[Node, ...]) -> dict[str, Any]:
    """What the kernel is told. Raises: NotFired when q and k do not agree."""
    shape = {name: qkv.attention.attrs[name] for name in ("layer", "num_heads", "num_kv_heads", "head_dim")}
    if any(qkv.write.attrs[name] != shape[name] for name in qkv.write.attrs):
        raise NotFired(f"kv_write {qkv.write.attrs} and attention {shape} differ")
    heads = (shape["num_heads"], shape["num_kv_heads"])
    for rope, count in zip(ropes, heads, strict=True):
        if (rope.attrs["num_heads"], rope.attrs["head_dim"]) != (count, shape["head_dim"]):
            raise NotFired(f"a rotation of {rope.attrs['num_heads']} heads where attention has {count}")
    if any("slope" in rope.inputs for rope in ropes):
        raise NotFired("queries grow by numbers of each head, which the kernel does not know")
    if len({rope.attrs["rope"] for rope in ropes}) != 1 or len({rope.inputs["positions"] for rope in ropes}) != 1:
        raise NotFired("q and k are rotated differently")
    for norm, count in zip(norms, heads, strict=False):
        if norm.attrs.get("centered", False) or set(norm.inputs) != {"x", "weight"}:
            raise NotFired("the kernel norms heads by their root mean square times a weight")
        if norm.attrs["num_heads"] != count or norm.attrs["eps"] != norms[0].attrs["eps"]:
            raise NotFired("q and k norms differ in eps, or do not work head by head")
    return shape | {"eps": norms[0].attrs["eps"] if norms else 0.0, "rope": ropes[0].attrs["rope"]}


def _check_norm_of_v(norm: Node, attrs: dict[str, Any]) -> None:
    is_like = norm.attrs["eps"] == attrs["eps"] and norm.attrs["num_heads"] == attrs["num_kv_heads"]
    if {*norm.inputs} != {"x"} or norm.attrs.get("centered", False) or not is_like:
        raise NotFired("heads of v are normed by no weight, and as those of q and k")


def _check_types(linear: Node, qkv: Qkv) -> None:
    dtype = linear.inputs["x"].type.dtype
    if dtype in ROW_CODES:
        dtype = qkv.attention.inputs["q"].type.dtype
    if qkv.q.end.type.dtype != dtype:
        raise NotFired(f"q is {qkv.q.end.type.dtype}, the compute type is {dtype}")
    for chain in (qkv.k, qkv.v):
        _check_stored_as(chain, dtype)


def _check_stored_as(chain: Chain, dtype: str) -> None:
    """A cast before kv_write must be the rounding kv_write does itself."""
    if chain.cast is not None and chain.end.type.dtype != dtype:
        raise NotFired(f"{chain.end} is rounded to {chain.end.type.dtype} before it is stored as {dtype}")
