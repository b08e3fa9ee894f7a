"""OpCall: what every reference op is given.

Used by the op files and interpret.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs

Array = NDArray[Any]
Exchange = Callable[[Array], Sequence[Array]]
#: Of each slot: module -> A [rank, in], B [out, rank] times the scale, as float32; absent: it is left as it is.
Adapters = Sequence[Mapping[str, tuple[Array, Array]]]


@dataclass(frozen=True, slots=True)
class OpCall:
    """Inputs by role, attributes, and the step the node runs in.

    Fields:
        exchange: gives an array to the other ranks and returns those of all, in order; None where there are none.
        adapters: what slots hold.
        states: (attribute state, slot) -> what a recurrent op keeps there.
    """

    inputs: Mapping[str, Any]
    attrs: Mapping[str, Any]
    step: StepInputs
    exchange: Exchange | None = None
    adapters: Adapters = ()
    states: MutableMapping[tuple[int, int], Array] = field(default_factory=dict)

    def __getitem__(self, role: str) -> Any:
        return self.inputs[role]
