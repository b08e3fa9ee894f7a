"""OpCall: what every reference op is given.

Used by the op files and interpret.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class OpCall:
    """Inputs by role, attributes, and the step the node runs in."""

    inputs: Mapping[str, Any]
    attrs: Mapping[str, Any]
    step: StepInputs

    def __getitem__(self, role: str) -> Any:
        return self.inputs[role]
