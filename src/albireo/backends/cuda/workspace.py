"""Workspace: device memory that launchers use between their own kernels, planned once for the largest step.

Made by model.py, given to launchers by bind.py. Allocated before anything is recorded, so addresses stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Workspace:
    """Scratch of one model.

    Fields:
        qkv: [T, (H + 2K) * D] float32: what a qkv_rope_kv call multiplies before it turns and stores it; of all layers.
        logits: [G, V] float32 under head_top.
        linear: of split sums, zeros at first; see kernels/linear.
        attention, work: partial results and the list of work items of a step.
    """

    qkv: torch.Tensor
    logits: torch.Tensor
    linear: torch.Tensor
    attention: torch.Tensor
    work: torch.Tensor
