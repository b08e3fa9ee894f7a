"""Scratch: device memory that launchers use between their own kernels, planned once for the largest step.

Made by placed_program.py, given to launchers by bind.py. Allocated before anything is recorded, so addresses stay.
Calls run one after another, so all of them share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from albireo.backends.cuda.attention_plan import AttentionShape, WorkList, work_list
from albireo.backends.cuda.attention_plan import workspace_size as attention_size
from albireo.backends.cuda.chip import chip_of
from albireo.backends.cuda.expert_linear import workspace_size as experts_size
from albireo.backends.cuda.expert_list import ExpertList, expert_list
from albireo.backends.cuda.expert_plan import widest
from albireo.backends.cuda.kernels.adapter import num_part_elements as adapter_parts
from albireo.backends.cuda.kernels.attention import need_rows
from albireo.backends.cuda.kernels.choose_blocks import scores_of
from albireo.backends.cuda.kernels.matmul_groups import most_tokens
from albireo.backends.cuda.kernels.top import top_workspace
from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.linear import workspace_size as linear_size
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.turns import GatherSpace, elements_for
from albireo.backends.cuda.workspace import workspace_bytes
from albireo.dtypes import FP8_TOKEN, ROW_CODES, TOKEN
from albireo.encodings import encoding
from albireo.errors import InvariantError
from albireo.graph.attention_op import lists_of, result_width
from albireo.graph.op_numbers import TOP_LOGITS
from albireo.graph.program import Call, Program, row_stride
from albireo.graph.program_spec import MEETINGS

_ROWS = {TOKEN: torch.uint8, FP8_TOKEN: torch.float8_e4m3fn}
_LINEARS = ("linear", "linear_norm", "linear_parts", "qkv_rope_kv", "head_top")


@dataclass(frozen=True, slots=True)
class Scratch:
    """Scratch of one model.

    Fields:
        qkv: [T, (H + 2K) * D] float32: what a qkv_rope_kv call multiplies before it turns and stores it.
        logits: [G, V] float32 under head_top.
        linear: bytes of split sums, zeros at first.
        top: int64 of a head_top's or top's keys.
        attention: float32 of partial results. rows: as many numbers of q's type as attention to codes needs.
        factors: of norms inside linears, one for each row of T, or of S where those may be more.
        experts: the list that layers of experts share; None: there are none.
        scores: [any, most positions] float32 of choose_keys, or as many as its blocks need.
        work: the list of work items of a step, for each shape of attention.
        parts: of sums over leaves and ranks, and of what ranks have of the head.
    """

    qkv: torch.Tensor
    logits: torch.Tensor
    linear: torch.Tensor
    top: torch.Tensor
    attention: torch.Tensor
    rows: torch.Tensor
    factors: torch.Tensor
    experts: ExpertList | None
    scores: torch.Tensor
    work: Mapping[AttentionShape, WorkList]
    parts: GatherSpace

    @classmethod
    def of(
        cls,
        program: Program,
        maxima: Mapping[str, int],
        max_positions: int,
        device: torch.device,
        seat: Seat | None = None,
    ) -> Scratch:
        """Room for steps of maxima (T, B, R, G), of sequences of up to max_positions tokens."""

        def zeros(size: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        calls = {family: [call for call in program.calls if call.family == family] for family in _FAMILIES}
        qkv = max((qkv_columns(call) for call in calls["qkv_rope_kv"]), default=0)
        vocab = max((int(call.attrs["n"]) for call in (*calls["head_top"], *calls["top"])), default=0)
        head = vocab if calls["head_top"] else 0
        shapes = {_shape_of(call, program, max_positions, device) for call in calls["attention"]}
        return cls(
            qkv=zeros(maxima["T"] * qkv, torch.float32).view(maxima["T"], qkv),
            logits=zeros(maxima["G"] * head, torch.float32).view(maxima["G"], head),
            linear=zeros(max((_linear_bytes(call, program, device) for call in program.calls), default=0), torch.uint8),
            top=zeros(top_workspace(maxima["G"], vocab), torch.int64),
            attention=zeros(max((attention_size(s, maxima["T"]) for s in shapes), default=0), torch.float32),
            factors=zeros(max(maxima["T"], maxima["S"]), torch.float32),
            experts=_expert_list(program, maxima["T"], device),
            rows=_rows_of_codes(calls["attention"], program, maxima["T"], device),
            scores=_scores(calls["choose_keys"], maxima["T"], max_positions, device),
            work={shape: work_list(shape, maxima["T"], maxima["B"], device) for shape in shapes},
            parts=GatherSpace(
                zeros(_most_parts(program, maxima, seat), torch.float32), None if seat is None else seat.peers
            ),
        )

    def with_linears(self, program: Program, device: torch.device) -> Scratch:
        """The same, with room for the linears of another program that has the same calls beside them."""
        num_bytes = max((_linear_bytes(call, program, device) for call in program.calls), default=0)
        if num_bytes <= len(self.linear):
            return self
        return replace(self, linear=torch.zeros(num_bytes, dtype=torch.uint8, device=device))

    @property
    def expert_list(self) -> ExpertList:
        """Raises: InvariantError where the program routes nothing."""
        if self.experts is None:
            raise InvariantError("a call of experts in a program that has none")
        return self.experts

    def work_of(self, call: Call, block_group: int, count: int = 0) -> WorkList:
        """The list that an attention call reads. Args: count: of positions that its rows choose; 0: they see all."""
        wanted = *_heads_and_keys(call), block_group, count, "from_rows" in call.args
        return next(work for s, work in self.work.items() if _told_apart_by(s) == wanted)


_FAMILIES = ("qkv_rope_kv", "head_top", "top", "attention", "choose_keys")
#: Scores that are there at once, at most: of more tokens they are computed in turns.
_MOST_SCORES = 1 << 24


def qkv_columns(call: Call) -> int:
    """Outputs of the linear in a qkv_rope_kv call."""
    attrs = call.attrs
    return int((attrs["num_heads"] + 2 * attrs["num_kv_heads"]) * attrs["head_dim"])


def _heads_and_keys(call: Call) -> tuple[int, int, int, int, int, int, int, int, bool, int]:
    """What it computes, and which keys its rows see."""
    attrs = call.attrs
    heads = attrs["num_heads"], attrs["num_kv_heads"], attrs["head_dim"]
    keys = attrs["window"] or 0, attrs.get("first_key", 0), attrs.get("num_keys", 0), attrs.get("in_chunks", False)
    return *heads, attrs.get("value_dim", 0), attrs.get("result_dim", 0), *keys, attrs.get("every", 1)


def _told_apart_by(s: AttentionShape) -> tuple[int, ...]:
    """What _heads_and_keys() says of a call, the block group, what is chosen, and whether rows add by distance."""
    heads, keys = (
        (s.num_heads, s.num_kv_heads, s.head_dim, s.value_dim, s.result_dim),
        (s.window, s.first_key, s.num_keys, s.in_chunks, s.every),
    )
    return *heads, *keys, s.block_group, s.chosen, s.by_distance


def _scores(calls: list[Call], tokens: int, max_positions: int, device: torch.device) -> torch.Tensor:
    """Room for the scores of as many tokens as there is reason for."""
    each = [
        scores_of(call.attrs["num_heads"], call.attrs["block"], max_positions)
        if "block" in call.attrs
        else max(1, max_positions // call.attrs.get("every", 1))
        for call in calls
    ]
    columns = max(each, default=max_positions)
    rows = max(1, min(tokens, _MOST_SCORES // columns)) if calls else 0
    return torch.zeros((rows, columns), dtype=torch.float32, device=device)


def _width(call: Call) -> int:
    """Numbers of a head's result."""
    return result_width(call.attrs)


def _waits_in_rows(call: Call, program: Program) -> bool:
    dtype = program.buffers[call.args["out"]].dtype
    return dtype in ROW_CODES and need_rows(
        _ROWS[dtype], _width(call), int(call.attrs.get("value_dim", call.attrs["head_dim"]))
    )


def _rows_of_codes(calls: list[Call], program: Program, tokens: int, device: torch.device) -> torch.Tensor:
    """Numbers of q's type, for attention whose codes share scales beyond a head."""
    coded = [call for call in calls if _waits_in_rows(call, program)]
    widths = [int(call.attrs["num_heads"]) * _width(call) for call in coded]
    dtype = program.buffers[coded[0].args["q"]].dtype if coded else "float32"
    return torch.zeros(tokens * max(widths, default=0), dtype=TORCH_DTYPES[dtype], device=device)


def _shape_of(call: Call, program: Program, max_positions: int, device: torch.device) -> AttentionShape:
    """What calls of attention that share a work list have in common."""
    chosen = call.args.get("chosen", "")
    choices = {each.args["ids"]: each.attrs for each in program.calls if each.family == "choose_keys"}
    choice = choices.get(chosen, {})
    sees_rest = bool(choice.get("as_positions", False))
    sizes = _heads_and_keys(call)
    heads, kv_heads, head_dim, value_dim, result_dim, window, first_key, num_keys, in_chunks, every = sizes
    return AttentionShape(
        heads,
        kv_heads,
        head_dim,
        max_context=max_positions,
        window=window,
        q_dtype=program.buffers[call.args["q"]].dtype,
        kv_dtype=program.kv.dtype,
        chip=chip_of(device),
        value_dim=value_dim,
        block_group=program.kv.place(call.attrs["layer"])[0],
        first_key=first_key,
        num_keys=num_keys,
        chosen=program.buffers[chosen].cols // lists_of(call.attrs) if chosen else 0,
        chosen_unit=int(choice.get("every" if sees_rest else "block", 1)),
        sees_rest=sees_rest,
        by_distance="from_rows" in call.args,
        in_chunks=in_chunks,
        result_dim=result_dim,
        every=every,
    )


def _expert_list(program: Program, tokens: int, device: torch.device) -> ExpertList | None:
    """One for all layers. Raises: InvariantError where a route is read behind the next, or layers differ."""
    readers = [call for call in program.calls if call.family == "expert_linear"]
    if not readers:
        return None
    routed = ""
    for call in program.calls:
        if call.family == "route":
            routed = call.args["ids"]
        elif call.family == "expert_linear" and call.args["ids"] != routed:
            raise InvariantError(f"{call.kernel} reads {call.args['ids']}; the route before it made {routed}")
    kinds = {(int(call.attrs["num_experts"]), int(call.attrs["top_k"])) for call in readers}
    if len(kinds) > 1:
        raise InvariantError(f"layers of {sorted(kinds)} experts, and of a token: all have to have the same")
    chip, types = chip_of(device), {_dtype_of(program, call) for call in readers}
    most = min(widest(dtype, chip) for dtype in types)
    of_codes = {_dtype_of(program, call) for call in readers if program.buffers[call.args["x"]].dtype == TOKEN}
    if groups := [encoding(dtype) for dtype in of_codes if encoding(dtype).group is not None]:
        most = min(most, *(most_tokens(e, chip) for e in groups))
    num_routed = max(program.buffers[call.args["x"]].cols for call in program.calls if call.family == "route")
    return expert_list(*kinds.pop(), tokens, device, most, num_routed, _repeats(program))


def _repeats(program: Program) -> bool:
    """Whether a token may have an expert more than once, as in a table that no router made; see ExpertList."""
    return any(call.family == "route" and "chosen" in call.args for call in program.calls)


def _dtype_of(program: Program, call: Call) -> str:
    """Of a call's weight."""
    return program.constants[call.args["weight"]].packing.partition(".")[2]


def _most_parts(program: Program, maxima: Mapping[str, int], seat: Seat | None) -> int:
    """float32 of the parts of a call, or of the head."""
    sizes = [0]
    for call in program.calls:
        chunks = int(call.attrs.get("chunks", 1))
        if call.family in MEETINGS:
            stride = program.buffers[call.args["x"]].stride
            sizes.append(elements_for(int(call.attrs["ranks"]), maxima["T"], stride))
        elif chunks > 1 and call.family != "adapter":  # whose leaves are not added up
            sizes.append(elements_for(chunks, maxima["T"], program.constants[call.args["weight"]].rows))
    if seat is not None:
        width = row_stride("float32", -(-seat.vocab_size // seat.peers.size))
        sizes.append(elements_for(seat.peers.size, maxima["R"], width))
        sizes.append(elements_for(seat.peers.size, maxima["G"], TOP_LOGITS))
    return max(sizes)


def _linear_bytes(call: Call, program: Program, device: torch.device) -> int:
    if call.family == "expert_linear":
        count, weight = int(call.attrs["num_experts"]), program.constants[call.args["weight"]]
        shape = (_dtype_of(program, call), weight.rows // count, weight.cols)
        return experts_size(count, int(call.attrs["top_k"]), *shape, device, _repeats(program))
    if call.family == "adapter":
        ranks, k = program.buffers[call.args["out"]].cols, program.buffers[call.args["x"]].cols
        leaves = int(call.attrs.get("chunks", 1))
        return workspace_bytes(adapter_parts(program.maxima[str(call.rows)], ranks, k, leaves))
    if call.family not in _LINEARS:
        return 0
    weights = [program.constants[call.args[role]] for role in ("weight", "v_weight") if role in call.args]
    outs = [program.buffers[call.args[role]] for role in ("out", "scaled") if role in call.args]
    to_codes = any(out.dtype == FP8_TOKEN for out in outs)
    chunks = int(call.attrs.get("chunks", 1))
    return max(chunks * linear_size(w.packing.partition(".")[2], w.rows, w.cols // chunks, to_codes) for w in weights)
