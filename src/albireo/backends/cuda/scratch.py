"""Scratch: device memory that launchers use between their own kernels, planned once for the largest step.

Made by model.py, given to launchers by bind.py. Allocated before anything is recorded, so addresses stay. Calls run one
after another, so all of them share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from albireo.backends.cuda.attention_plan import AttentionShape, WorkList, work_list
from albireo.backends.cuda.attention_plan import workspace_size as attention_size
from albireo.backends.cuda.kernels.top import top_workspace
from albireo.backends.cuda.linear import workspace_size as linear_size
from albireo.graph.program import Call, Program

_LINEARS = ("linear", "qkv_rope_kv", "head_top")
#: Of a step on CPU tensors, where the number only has to be small.
_FEW_PROCESSORS = 4


@dataclass(frozen=True, slots=True)
class Scratch:
    """Scratch of one model.

    Fields:
        qkv: [T, (H + 2K) * D] float32: what a qkv_rope_kv call multiplies before it turns and stores it.
        logits: [G, V] float32 under head_top.
        linear: bytes of split sums, zeros at first.
        top: int64 of a head_top's or top's keys.
        attention: float32 of partial results. work: the list of work items of a step, for each shape of attention.
    """

    qkv: torch.Tensor
    logits: torch.Tensor
    linear: torch.Tensor
    top: torch.Tensor
    attention: torch.Tensor
    work: Mapping[AttentionShape, WorkList]

    @classmethod
    def of(cls, program: Program, maxima: Mapping[str, int], max_positions: int, device: torch.device) -> Scratch:
        """Room for steps of maxima (T, B, G), of sequences of up to max_positions tokens."""

        def zeros(size: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        calls = {family: [call for call in program.calls if call.family == family] for family in _FAMILIES}
        qkv = max((qkv_columns(call) for call in calls["qkv_rope_kv"]), default=0)
        vocab = max((int(call.attrs["n"]) for call in (*calls["head_top"], *calls["top"])), default=0)
        head = vocab if calls["head_top"] else 0
        processors = multiprocessors(device)
        shapes = {shape_of(call, max_positions, processors) for call in calls["attention"]}
        return cls(
            qkv=zeros(maxima["T"] * qkv, torch.float32).view(maxima["T"], qkv),
            logits=zeros(maxima["G"] * head, torch.float32).view(maxima["G"], head),
            linear=zeros(max((_linear_bytes(call, program) for call in program.calls), default=0), torch.uint8),
            top=zeros(top_workspace(maxima["G"], vocab), torch.int64),
            attention=zeros(max((attention_size(s, maxima["T"]) for s in shapes), default=0), torch.float32),
            work={shape: work_list(shape, maxima["T"], maxima["B"], device) for shape in shapes},
        )


_FAMILIES = ("qkv_rope_kv", "head_top", "top", "attention")


def qkv_columns(call: Call) -> int:
    """Outputs of the linear in a qkv_rope_kv call."""
    attrs = call.attrs
    return int((attrs["num_heads"] + 2 * attrs["num_kv_heads"]) * attrs["head_dim"])


def shape_of(call: Call, max_positions: int, processors: int) -> AttentionShape:
    """What calls of attention that share a work list have in common."""
    attrs = call.attrs
    return AttentionShape(
        num_heads=attrs["num_heads"],
        num_kv_heads=attrs["num_kv_heads"],
        head_dim=attrs["head_dim"],
        max_context=max_positions,
        window=attrs["window"] or 0,
        multiprocessors=processors,
    )


def multiprocessors(device: torch.device) -> int:
    """Of a GPU; a small number elsewhere."""
    if device.type != "cuda":
        return _FEW_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _linear_bytes(call: Call, program: Program) -> int:
    if call.family not in _LINEARS:
        return 0
    weight = program.constants[call.args["weight"]]
    dtype = weight.packing.partition(".")[2]
    return linear_size(dtype, weight.rows, weight.cols)
