"""A call of the program -> a launch: names become views of the arena, of the constants, of the step.

Called by placed_program.py once a call. A launch cuts its views to the rows of its step; it allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from albireo.backends.cuda.bind_states import OF_STATES
from albireo.backends.cuda.bind_streams import OF_STREAMS
from albireo.backends.cuda.call_args import CallArgs, Launch, Memory
from albireo.backends.cuda.expert_linear import expert_linear
from albireo.backends.cuda.kernels.adapter import adapter
from albireo.backends.cuda.kernels.add_given import add_given
from albireo.backends.cuda.kernels.add_parts import add_parts
from albireo.backends.cuda.kernels.attention import attention
from albireo.backends.cuda.kernels.choose_blocks import choose_blocks
from albireo.backends.cuda.kernels.choose_keys import choose_keys
from albireo.backends.cuda.kernels.depthwise_conv import depthwise_conv
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.embed import embed
from albireo.backends.cuda.kernels.gate_rows import gate_rows
from albireo.backends.cuda.kernels.gather import gather
from albireo.backends.cuda.kernels.given import given
from albireo.backends.cuda.kernels.head_linear import head_linear
from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.head_rows import HeadTails, head_rows
from albireo.backends.cuda.kernels.join_heads import join_heads
from albireo.backends.cuda.kernels.kv_row import RowNorm, RowTurns, kv_row
from albireo.backends.cuda.kernels.kv_write import kv_write
from albireo.backends.cuda.kernels.moe_combine import moe_combine
from albireo.backends.cuda.kernels.moe_route import Groups, Rules, moe_route
from albireo.backends.cuda.kernels.norm import norm
from albireo.backends.cuda.kernels.output_gate import output_gate
from albireo.backends.cuda.kernels.parts.by_distance import ByDistance
from albireo.backends.cuda.kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write
from albireo.backends.cuda.kernels.rope import Growing, rope
from albireo.backends.cuda.kernels.slice_columns import slice_columns
from albireo.backends.cuda.kernels.top import top
from albireo.backends.cuda.kernels.two_norms import Gain, two_norms
from albireo.backends.cuda.linear import linear, linear_of_leaves
from albireo.backends.cuda.scratch import qkv_columns
from albireo.backends.cuda.step import DeviceStep
from albireo.dtypes import ROW_CODES
from albireo.errors import InvariantError
from albireo.graph.attention_op import lists_of
from albireo.graph.distance_columns import distance_columns
from albireo.graph.op_numbers import CONV_ACTIVATIONS, GROUPS
from albireo.graph.program import Call


def bind(call: Call, memory: Memory) -> Launch:
    """The launch of one call. Raises: KeyError for a family that has no kernel here."""
    return _FAMILIES[call.family](CallArgs(call, memory))


def _embed(args: CallArgs) -> Launch:
    ids, table, out = args.ids("ids"), args.matrix("table"), args.buffer("out")
    attrs = args.call.attrs
    factor, is_of_tokens = float(attrs.get("scale", 1.0)), args.call.args["ids"] == "token_ids"
    is_of_tokens = is_of_tokens and not attrs.get("never_given", False)

    def launch(step: DeviceStep) -> None:
        embed(ids(step), table, out(step), factor)
        if is_of_tokens and step.given_rows is not None:
            given(step.given[0], out(step), step.given_rows, factor)

    return launch


def _given(args: CallArgs) -> Launch:
    out, place = args.buffer("out"), args.number("place")
    return lambda step: given(step.given[place], out(step))


def _add_given(args: CallArgs) -> Launch:
    x, out, place, parts_out = args.buffer("x"), args.buffer("out"), args.number("place"), args.parts_out()
    return lambda step: add_given(x(step), *_given_rows(step, place), out(step), parts_out(step))


def _given_rows(step: DeviceStep, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, and which of them is a token's. Raises: InvariantError where the step brings none."""
    if step.given_rows is None or place >= len(step.given):
        raise InvariantError("a program that adds rows of pictures runs a step that brings none")
    return step.given[place], step.given_rows


def _norm(args: CallArgs) -> Launch:
    x, weight, bias, out = args.buffer("x"), *(args.optional_vector(r) for r in ("weight", "bias")), args.buffer("out")
    eps, cols, centered = float(args.call.attrs["eps"]), args.columns("x"), bool(args.call.attrs.get("centered", False))
    if "rows" in args.call.args:
        rows = args.ids("rows")
        return lambda step: norm(x(step), weight, out(step), eps, cols, rows(step), bias=bias, centered=centered)
    residual = args.optional_buffer("residual")
    return lambda step: norm(x(step), weight, out(step), eps, cols, base=residual(step), bias=bias, centered=centered)


def _two_norms(args: CallArgs) -> Launch:
    x, base, by = args.buffer("x"), args.buffer("residual"), args.optional_vector("by")
    out, normed, attrs = args.buffer("out"), args.buffer("normed"), args.call.attrs
    first = Gain(float(attrs["eps"]), args.optional_vector("weight"))
    second = Gain(float(attrs["next_eps"]), args.optional_vector("next_weight"))
    return lambda step: two_norms(x(step), first, base(step), by, second, out(step), normed(step))


def _gather(args: CallArgs) -> Launch:
    x, rows, out = args.buffer("x"), args.ids("rows"), args.buffer("out")
    return lambda step: gather(x(step), rows(step), out(step))


def _linear(args: CallArgs) -> Launch:
    x, weight, out = args.buffer("x"), args.matrix(), args.buffer("out")
    bias, residual, parts_out = args.optional_vector("bias"), args.optional_buffer("residual"), args.parts_out()
    act, n, scratch = args.call.attrs["act"], args.number("n"), args.memory.scratch.linear
    squares, added = args.row_squares(), args.added()
    chunks, space = int(args.call.attrs.get("chunks", 1)), args.memory.scratch.parts
    if chunks > 1:
        return lambda step: linear_of_leaves(
            x(step),
            weight,
            out(step),
            chunks,
            space,
            bias=bias,
            residual=residual(step),
            workspace=scratch,
            parts_out=parts_out(step),
            added=added(step),
        )
    return lambda step: linear(
        x(step),
        weight,
        out(step),
        n=n,
        bias=bias,
        residual=residual(step),
        act=act,
        workspace=scratch,
        squares=squares(step),
        parts_out=parts_out(step),
        added=added(step),
    )


def _linear_parts(args: CallArgs) -> Launch:
    """Columns of one linear, which is written where the first of them begins."""
    n = args.number("n")
    x, weight, out = args.buffer("x"), args.matrix(), args.buffer("out", within=n)
    scratch, squares, added = args.memory.scratch.linear, args.row_squares(), args.added()
    return lambda step: linear(
        x(step), weight, out(step), n=n, workspace=scratch, squares=squares(step), added=added(step)
    )


def _all_reduce(args: CallArgs) -> Launch:
    """Ranks meet in the gather; each adds all parts itself."""
    x, out, space = args.buffer("x"), args.buffer("out"), args.memory.scratch.parts
    bias, residual, parts_out = args.optional_vector("bias"), args.optional_buffer("residual"), args.parts_out()

    def launch(step: DeviceStep) -> None:
        to, base, norm = out(step), residual(step), parts_out(step)
        for rows, gathered in space.gather(x(step)):
            of_norm = None if norm is None else norm.turn(rows)
            add_parts(gathered, to[rows], bias, None if base is None else base[rows], of_norm)

    return launch


def _adapter(args: CallArgs) -> Launch:
    x, out, slots, k = args.buffer("x"), args.buffer("out"), args.slots(), args.columns("x")
    a, scratch = args.memory.adapter_slots.of(args.call).a, args.memory.scratch
    leaves = int(args.call.attrs.get("chunks", 1))
    return lambda step: adapter(x(step), a, slots(step), out(step), k, scratch.linear, leaves)


def _qkv_rope_kv(args: CallArgs) -> Launch:
    x, weight, q = args.buffer("x"), args.matrix(), args.buffer("q")
    bias, q_norm, k_norm = (args.optional_vector(role) for role in ("bias", "q_norm", "k_norm"))
    table, layer, group = args.vector("rope"), args.memory.kv.layers[args.number("layer")], args.block_group
    heads, kv_heads, head_dim = (args.number(name) for name in ("num_heads", "num_kv_heads", "head_dim"))
    eps, scratch = float(args.call.attrs["eps"]), args.memory.scratch
    n, of_v, squares, added = qkv_columns(args.call), None, args.row_squares(), args.added()
    norms_v = bool(args.call.attrs.get("norms_v", False))
    if "v_weight" in args.call.args:  # in another encoding than q and k
        of_v, v_bias, of_qk = args.matrix("v_weight"), args.optional_vector("v_bias"), bias
        first, bias = n - kv_heads * head_dim, None

    def launch(step: DeviceStep) -> None:
        qkv = scratch.qkv[: step.sizes["T"], :n]
        if of_v is None:
            linear(x(step), weight, qkv, n=n, workspace=scratch.linear, squares=squares(step), added=added(step))
        else:
            linear(x(step), weight, qkv[:, :first], n=first, bias=of_qk, workspace=scratch.linear)
            linear(x(step), of_v, qkv[:, first:], n=n - first, bias=v_bias, workspace=scratch.linear)
        qk_norm_rope_kv_write(
            qkv,
            bias,
            q_norm,
            k_norm,
            *step.rotation(table),
            step.slots[group],
            q(step),
            layer,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            eps=eps,
            norms_v=norms_v,
        )

    return launch


def _attention(args: CallArgs) -> Launch:
    q, out, attrs = args.buffer("q"), args.buffer("out"), args.call.attrs
    layer, scratch, group = args.memory.kv.layers[args.number("layer")], args.memory.scratch, args.block_group
    sinks, slopes = args.optional_vector("sinks"), None
    if "slopes" in attrs:
        slopes = torch.tensor(attrs["slopes"], dtype=torch.float32, device=args.memory.kv.device)
    chosen, count = None, 0
    if "chosen" in args.call.args:
        chosen, count = args.buffer("chosen"), args.columns("chosen") // lists_of(attrs)
    added = _added(args)
    work, is_coded = (
        scratch.work_of(args.call, group, count),
        args.memory.specs[args.call.args["out"]].dtype in ROW_CODES,
    )
    return lambda step: attention(
        q(step),
        layer,
        out(step),
        step,
        work,
        scratch.attention,
        num_heads=attrs["num_heads"],
        num_kv_heads=attrs["num_kv_heads"],
        head_dim=attrs["head_dim"],
        scale=attrs["scale"],
        window=attrs["window"] or 0,
        softcap=attrs["softcap"] or 0.0,
        rows=scratch.rows if is_coded else None,
        sinks=sinks,
        slopes=slopes,
        value_dim=attrs.get("value_dim", 0),
        both_ways=bool(attrs.get("both_ways", False)),
        row_ends=None if attrs.get("causal", False) else step.row_ends,
        chosen=None if chosen is None else chosen(step),
        added=added(step),
        sums=bool(attrs.get("sums", False)),
    )


def _added(args: CallArgs) -> Callable[[DeviceStep], ByDistance | None]:
    """What scores have added by distance, in units of those before their scale."""
    attrs, device = args.call.attrs, args.memory.kv.device
    if "distances" in args.call.args:
        table = args.matrix("distances").codes
        scaled = (table.float() / attrs["scale"]).t().contiguous()
        by_table = ByDistance(len(table) // 2, distances=scaled)
        return lambda step: by_table
    if "from_rows" not in args.call.args:
        return lambda step: None
    rows, keys, reach = args.buffer("from_rows"), args.optional_buffer("from_keys"), int(attrs["reach"])
    count, columns = args.columns("from_rows") // attrs["num_heads"], None
    if count < 2 * reach:  # else each distance has its own
        columns = torch.tensor(distance_columns(count, reach), dtype=torch.int32, device=device)
    return lambda step: ByDistance(reach, None, rows(step), keys(step), columns)


def _choose_keys(args: CallArgs) -> Launch:
    q, ids, attrs = args.buffer("q"), args.buffer("ids"), args.call.attrs
    layer, group, scores = args.memory.kv.layers[args.number("layer")], args.block_group, args.memory.scratch.scores
    heads = attrs["num_heads"], attrs["head_dim"]
    if "block" in attrs:
        blocks = attrs["block"], attrs["nearest"]
        return lambda step: choose_blocks(q(step), layer, ids(step), step, group, scores, *heads, *blocks)
    weights, is_spelled = args.optional_buffer("weights"), bool(attrs.get("as_positions", False))
    return lambda step: choose_keys(q(step), weights(step), layer, ids(step), step, group, scores, *heads, is_spelled)


def _head_top(args: CallArgs) -> Launch:
    x, weight = args.buffer("x"), args.matrix()
    ids, values = args.buffer("ids"), args.buffer("values")
    n, scratch, cap = args.number("n"), args.memory.scratch, float(args.call.attrs.get("softcap", 0.0))

    def launch(step: DeviceStep) -> None:
        logits = scratch.logits[: step.sizes["G"], :n]
        linear(x(step), weight, logits, n=n, workspace=scratch.linear)
        if cap > 0.0:
            elementwise("softcap", logits, None, logits, n, cap)
        top(logits, step.top_counts, ids(step), values(step), scratch.top)

    return launch


def _route(args: CallArgs) -> Launch:
    x, ids, weights = args.buffer("x"), args.buffer("ids"), args.buffer("weights")
    lists, attrs = args.memory.scratch.expert_list, args.call.attrs
    bias, gain = (args.optional_vector(role) for role in ("bias", "gain"))
    groups = Groups(*(int(attrs[name]) for name in GROUPS)) if GROUPS[0] in attrs else None
    rules = Rules(
        bool(attrs["renormalize"]),
        attrs.get("scores", "softmax"),
        groups,
        attrs.get("factor"),
        attrs.get("eps"),
        attrs.get("margin"),
        bool(attrs.get("by_logits", False)),
        bool(attrs.get("shared", False)),
    )
    chosen, gate = args.optional_buffer("chosen"), args.optional_buffer("gate")
    return lambda step: moe_route(
        x(step), ids(step), weights(step), lists, step.num_real, rules, bias, gain, chosen(step), gate(step)
    )


def _expert_linear(args: CallArgs) -> Launch:
    """Ids are read where the route before left them: in the list."""
    x, weight, out = args.buffer("x"), args.matrix(), args.buffer("out")
    act, n, scratch = args.call.attrs["act"], args.number("n"), args.memory.scratch
    lists, squares, bias = scratch.expert_list, args.row_squares(), args.optional_vector("bias")
    return lambda step: expert_linear(
        x(step), weight, out(step), lists, act=act, n=n, workspace=scratch.linear, squares=squares(step), bias=bias
    )


def _combine(args: CallArgs) -> Launch:
    x, weights, out = args.buffer("x"), args.buffer("weights"), args.buffer("out")
    residual, parts_out = args.optional_buffer("residual"), args.parts_out()
    # which pairs nobody computes, those of experts that give back what they read, is in the list
    lists, keeps = args.memory.scratch.expert_list, "ids" in args.call.args
    return lambda step: moe_combine(
        x(step),
        weights(step),
        out(step),
        residual(step),
        step.num_real,
        parts_out(step),
        lists.ids,
        lists.num_experts,
        keeps,
    )


def _gate_rows(args: CallArgs) -> Launch:
    x, gate, out = args.buffer("x"), args.buffer("gate"), args.buffer("out")
    residual = args.optional_buffer("residual")
    is_softplus = args.call.attrs.get("kind") == "softplus"
    return lambda step: gate_rows(x(step), gate(step), out(step), residual(step), is_softplus)


def _top(args: CallArgs) -> Launch:
    x, ids, values = args.buffer("x"), args.buffer("ids"), args.buffer("values")
    keys = args.memory.scratch.top
    return lambda step: top(x(step), step.top_counts, ids(step), values(step), keys)


def _elementwise(args: CallArgs) -> Launch:
    x, y, out = args.buffer("x"), args.optional_buffer("y"), args.buffer("out")
    kind, cols, weight = args.call.attrs["kind"], args.columns("x"), args.optional_vector("weight")
    number = float(args.call.attrs.get(kind, 1.0))  # of scale and softcap, which attributes are called after
    return lambda step: elementwise(kind, x(step), y(step), out(step), cols, number, weight)


def _head_norm(args: CallArgs) -> Launch:
    x, weight, out = args.buffer("x"), args.optional_vector("weight"), args.buffer("out")
    eps, heads = float(args.call.attrs["eps"]), args.number("num_heads")
    is_centered = bool(args.call.attrs.get("centered", False))
    return lambda step: head_norm(x(step), weight, out(step), eps, heads, is_centered)


def _rope(args: CallArgs) -> Launch:
    x, table, out = args.buffer("x"), args.vector("rope"), args.buffer("out")
    heads, head_dim = args.number("num_heads"), args.number("head_dim")
    is_side_by_side, ahead = bool(args.call.attrs.get("side_by_side", False)), args.call.attrs.get("ahead")
    slope, start, weight = (args.optional_vector(role) for role in ("slope", "start", "weight"))
    eps = args.call.attrs.get("eps")

    def launch(step: DeviceStep) -> None:
        growing = None
        if slope is not None and start is not None and ahead is not None:
            growing = Growing(slope, start, step.turned_positions, int(ahead))
        rope(x(step), *step.rotation(table), out(step), heads, head_dim, is_side_by_side, growing, weight, eps)

    return launch


def _kv_write(args: CallArgs) -> Launch:
    k, v, layer = args.buffer("k"), args.optional_buffer("v"), args.memory.kv.layers[args.number("layer")]
    kv_heads, head_dim = args.number("num_kv_heads"), args.number("head_dim")
    group, attrs = args.block_group, args.call.attrs
    if {"eps", "rope", "tail"} & {*attrs, *args.call.args}:
        tail, weight, bias = args.optional_buffer("tail"), args.optional_vector("weight"), args.optional_vector("bias")
        norm = RowNorm(attrs["eps"], weight, bias, bool(attrs.get("centered", False))) if "eps" in attrs else None
        table, pairs = args.optional_vector("rope"), bool(attrs.get("side_by_side", False))

        def launch(step: DeviceStep) -> None:
            turns = RowTurns(*step.rotation(table), pairs) if table is not None else None
            kv_row(k(step), tail(step), norm, turns, step.positions, step.slots[group], layer)

        return launch
    return lambda step: kv_write(k(step), v(step), step.slots[group], layer, kv_heads, head_dim, step.positions)


def _head_linear(args: CallArgs) -> Launch:
    x, weight, out = args.buffer("x"), args.matrix().codes, args.buffer("out")
    heads, n = args.number("num_heads"), args.number("n")
    return lambda step: head_linear(x(step), weight, out(step), heads, n)


def _head_rows(args: CallArgs) -> Launch:
    x, weight, tail, out = args.buffer("x"), args.matrix().codes, args.buffer("tail"), args.buffer("out")
    heads, n, table = args.number("num_heads"), args.number("n"), args.optional_vector("rope")
    pairs = bool(args.call.attrs.get("side_by_side", False))

    def launch(step: DeviceStep) -> None:
        tails = HeadTails(tail(step)) if table is None else HeadTails(tail(step), *step.rotation(table), pairs)
        head_rows(x(step), weight, tails, out(step), heads, n)

    return launch


def _join_heads(args: CallArgs) -> Launch:
    x, y, out, heads = args.buffer("x"), args.buffer("y"), args.buffer("out"), args.number("num_heads")
    return lambda step: join_heads(x(step), y(step), out(step), heads)


def _output_gate(args: CallArgs) -> Launch:
    x, gate, out, weight = args.buffer("x"), args.buffer("gate"), args.buffer("out"), args.optional_vector("weight")
    attrs = args.call.attrs
    kind, heads, eps = attrs["kind"], int(attrs.get("num_heads", 1)), attrs.get("eps", 0.0)
    is_behind = bool(attrs.get("is_behind", False))
    return lambda step: output_gate(kind, x(step), gate(step), weight, out(step), heads, eps, is_behind)


def _depthwise_conv(args: CallArgs) -> Launch:
    x, weight, out, bias = args.buffer("x"), args.matrix().codes, args.buffer("out"), args.optional_vector("bias")
    activation = args.call.attrs.get("activation", CONV_ACTIVATIONS[0])
    return lambda step: depthwise_conv(x(step), weight, out(step), bias, activation)


def _slice(args: CallArgs) -> Launch:
    x, out, start = args.buffer("x"), args.buffer("out"), args.number("start")
    return lambda step: slice_columns(x(step), start, out(step))


_FAMILIES: Mapping[str, Callable[[CallArgs], Launch]] = {
    **OF_STATES,
    **OF_STREAMS,
    "embed": _embed,
    "given": _given,
    "add_given": _add_given,
    "add_given_norm": _add_given,
    "norm": _norm,
    "two_norms": _two_norms,
    "gather": _gather,
    "linear": _linear,
    "linear_norm": _linear,
    "linear_parts": _linear_parts,
    "all_reduce": _all_reduce,
    "all_reduce_norm": _all_reduce,
    "qkv_rope_kv": _qkv_rope_kv,
    "choose_keys": _choose_keys,
    "attention": _attention,
    "head_top": _head_top,
    "route": _route,
    "expert_linear": _expert_linear,
    "combine": _combine,
    "combine_norm": _combine,
    "gate_rows": _gate_rows,
    "head_linear": _head_linear,
    "head_rows": _head_rows,
    "join_heads": _join_heads,
    "elementwise": _elementwise,
    "head_norm": _head_norm,
    "rope": _rope,
    "kv_write": _kv_write,
    "output_gate": _output_gate,
    "depthwise_conv": _depthwise_conv,
    "slice": _slice,
    "top": _top,
    "adapter": _adapter,
}
