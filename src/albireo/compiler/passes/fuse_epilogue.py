"""A linear with what is done to its result: bias, residual, an activation with its rounding, or that of a gate, whose
product with up it is; or rounding alone."""

from __future__ import annotations

from collections.abc import Mapping

from albireo.compiler.rewrite import NotFired, Rewriter, adapter_attrs, linear_roles, made_by
from albireo.dtypes import COMPUTE_DTYPES, FP8_TOKEN, ROW_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program import is_gated
from albireo.graph.program_spec import ACTS
from albireo.graph.report import PassRecord

WHY = "bias, residual and activation are applied to the tile in registers, not in further passes over memory"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_epilogue", WHY, "exact")
    for linear in rw.nodes("linear"):
        with rw.attempt(linear, *rw.users(linear.output)):
            _fuse(rw, linear)
    for linear in rw.nodes("expert_linear"):
        split = rw.only(linear.output, "split")
        if split is not None:  # alone it is a kernel too, and what is added to is the sum of a token's experts
            with rw.attempt(linear, *rw.users(linear.output)):
                _gated(rw, linear, split)
    return rw.finish()


def _fuse(rw: Rewriter, linear: Node) -> None:
    y = linear.output
    split, add, act = (rw.only(y, op) for op in ("split", "add", "unary"))
    if split is not None:
        try:
            _gated(rw, linear, split)
        except NotFired:
            _alone(rw, linear)
            raise
    elif add is not None:
        _residual(rw, linear, add)
    elif act is not None:
        _mapped(rw, linear, act)
    else:
        cast = rw.only(y, "cast")
        is_rounded = cast is not None and cast.attrs["dtype"] == linear.inputs["x"].type.dtype in COMPUTE_DTYPES
        _alone(rw, linear, *((cast,) if cast is not None and is_rounded else ()))


def _alone(rw: Rewriter, linear: Node, *cast: Node) -> None:
    members = (linear, *cast)
    rw.fuse(members, "linear", _attrs(linear, "none"), linear_roles(linear), members[-1].outputs)


def _residual(rw: Rewriter, linear: Node, add: Node) -> None:
    x, y = add.inputs["x"], add.inputs["y"]
    if x is y:
        raise NotFired(f"{x} is added to itself")
    roles = linear_roles(linear) | {"residual": x if y is linear.output else y}
    rw.fuse((linear, add), "linear", _attrs(linear, "none"), roles, add.outputs)


def _mapped(rw: Rewriter, linear: Node, act: Node) -> None:
    """unary -> [cast]."""
    name = str(act.attrs["kind"])
    if name not in ACTS:
        raise NotFired(f"no kernel family has the activation {name}; known: {', '.join(ACTS)}")
    _end(rw, linear, [linear, act], name)


def _gated(rw: Rewriter, linear: Node, split: Node) -> None:
    """split -> mul(unary(gate), up), or an act of both -> [cast]."""
    if len(split.outputs) != 2 or len(set(split.attrs["sizes"])) != 1:
        raise NotFired(f"split in {split.attrs['sizes']} is not a gate and its up")
    gate, up = split.outputs
    act, mul = rw.sole_user(gate), rw.sole_user(up)
    if act is mul and act.op in ACTS and act.inputs["x"] is gate:
        return _end(rw, linear, [linear, split, act], act.op)
    if act.op != "unary" or mul.op != "mul" or made_by(_other(mul, up), "unary") is not act:
        raise NotFired(f"{gate} and {up} are not multiplied as act(gate) * up")
    name = f"{act.attrs['kind']}_mul"
    if name not in ACTS:
        raise NotFired(f"no kernel family has the activation {name}; known: {', '.join(ACTS)}")
    rw.sole_user(act.output)
    _end(rw, linear, [linear, split, act, mul], name)


def _end(rw: Rewriter, linear: Node, members: list[Node], act: str) -> None:
    """Make one of them, and of the rounding of what they give."""
    cast, dtype = rw.only(members[-1].output, "cast"), linear.inputs["x"].type.dtype
    if cast is not None and _can_end_in(cast.attrs["dtype"], dtype, linear.op, act):
        members.append(cast)
    out = members[-1].output
    if out.type.dtype != dtype and dtype not in ROW_CODES:
        raise NotFired(f"{out} is {out.type.dtype}, the compute type is {dtype}")
    rw.fuse(members, linear.op, _attrs(linear, act), _roles(linear), (out,))


def _can_end_in(dtype: str, x: str, op: str, act: str) -> bool:
    """Codes with a scale a row need all of it at once. Those of groups are written where such are read, but by experts,
    of whose rows a kernel has less than a group."""
    return dtype not in ROW_CODES or (dtype == FP8_TOKEN == x and op == "linear" and is_gated(act))


def _other(mul: Node, value: Value) -> Value:
    return mul.inputs["y"] if mul.inputs["x"] is value else mul.inputs["x"]


def _roles(linear: Node) -> Mapping[str, Value | None]:
    return linear_roles(linear) if linear.op == "linear" else linear.inputs


def _attrs(linear: Node, act: str) -> dict[str, object]:
    n, k = linear.output.type.dims[-1], linear.inputs["weight"].type.dims[1]
    found = {"n": int(n) // 2 if is_gated(act) else n, "k": k, "act": act} | adapter_attrs(linear)
    return found | {name: linear.attrs[name] for name in ("chunks", "num_experts", "top_k") if name in linear.attrs}
