"""What tasks ask of the sampler, in device memory: arrays of a step, staged with the rest of it.

Filled by task_arrays.py, handed to kernels/sample_*.py by sample_call.py; kernels/sample.py makes the scratch. Does not
know logits, nor in which order tasks' wishes take effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from albireo.backends.cuda.staging import Columns

#: Arrays of D tasks; those behind the last one of a step are greedy on row 0.
TASK_COLUMNS: Columns = {
    "temperature": ("D", np.float64),
    "top_p": ("D", np.float64),
    "min_p": ("D", np.float64),
    "seed": ("D", np.int64),
    "position": ("D", np.int64),
    "task_rows": ("D", np.int32),
    "flags": ("D", np.int32),
    "top_k": ("D", np.int32),
    "mask_start": ("D", np.int32),
    "first_edit": ("D", np.int32),
    "num_edits": ("D", np.int32),
    "repetition": ("D", np.float32),
    "frequency": ("D", np.float32),
    "presence": ("D", np.float32),
}


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """The arrays of a step's tasks; kernels/sample_*.py say what they mean. words: the buffer that they are part of."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seed: torch.Tensor
    position: torch.Tensor
    rows: torch.Tensor
    flags: torch.Tensor
    top_k: torch.Tensor
    mask_start: torch.Tensor
    first_edit: torch.Tensor
    num_edits: torch.Tensor
    repetition: torch.Tensor
    frequency: torch.Tensor
    presence: torch.Tensor
    words: torch.Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor], words: torch.Tensor) -> SamplingTensors:
        """Args: tensors: of TASK_COLUMNS."""
        return cls(**{"rows" if name == "task_rows" else name: tensors[name] for name in TASK_COLUMNS}, words=words)


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """Scratch of kernels/sample_*.py for S tasks; arrived is zeros between launches."""

    num_tasks: int
    work: torch.Tensor
    alive: torch.Tensor
    best: torch.Tensor
    crests: torch.Tensor
    stretches: torch.Tensor
    num_found: torch.Tensor
    keys: torch.Tensor
    partial: torch.Tensor
    inside: torch.Tensor
    strict: torch.Tensor
    ties: torch.Tensor
    state: torch.Tensor
    draws: torch.Tensor
    arrived: torch.Tensor
