"""What some steps bring beside the arrays of all: rows of pictures, rotations of their own, ends of what rows see.

Called by placed_program.py for steps that are launched call by call, as those with pictures and those of vision towers
are: nothing of it has a place that a recording would find again. Tensors are made for the step; the host waits for the
copy, and with it for the steps that are under way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from albireo.backends.cuda.step import DeviceStep
from albireo.backends.step_inputs import StepInputs
from albireo.graph.program import Program


def brings_rows(inputs: StepInputs, has_rope_positions: bool, listens: bool) -> bool:
    """Whether a step has what staging.py has no place for.

    Args: has_rope_positions: it has one for these. listens: and one for ends, which are of what is heard.
    """
    others = (inputs.given_rows, inputs.rope_rows, None if listens else inputs.row_ends)
    is_turned = inputs.rope_positions is not None and not has_rope_positions
    return bool(inputs.given) or is_turned or any(array is not None for array in others)


def with_rows(step: DeviceStep, inputs: StepInputs, device: torch.device) -> DeviceStep:
    """A step of its own size, and what it brings."""

    def sent(array: NDArray[Any] | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array).to(device)

    def there(rows: Any) -> torch.Tensor:
        # hidden states that a head reads are
        if isinstance(rows, torch.Tensor):
            return rows
        # a sound's numbers as they came may not be written, which torch warns of
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(device)

    turns = inputs.rope_positions if step.rope_positions is None else None
    return replace(
        step,
        rope_positions=step.rope_positions if turns is None else sent(turns),
        rope_rows=sent(inputs.rope_rows),
        row_numbers=None if inputs.rope_rows is None else _numbers(inputs.num_tokens, device),
        given=tuple(there(rows) for rows in inputs.given),
        given_rows=sent(inputs.given_rows),
        row_ends=sent(inputs.row_ends) if step.heard is None else None,
    )


def with_empty_rows(step: DeviceStep, program: Program, device: torch.device) -> DeviceStep:
    """A step of padding, and as much of what its program reads of each token as there can be."""
    given = {call.attrs["place"]: int(call.attrs["width"]) for call in program.calls if call.family == "given"}
    count = step.sizes["T"]
    rows = [torch.zeros((count, given.get(place, 0)), device=device) for place in range(max(given, default=-1) + 1)]
    return replace(step, given=tuple(rows))


def _numbers(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(count, dtype=torch.int32, device=device)
