"""AdapterRunner: the model's program for steps in which a sequence has an adapter, and what its slots hold.

Made by api/, run by runner.py. Does not know why an adapter is in a plan, nor where it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from albireo.backends.adapter_weights import AdapterWeights
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.errors import InvariantError
from albireo.step import StepPlan


class Slots(Protocol):
    """Memory for adapters, as an AdapterProgram reads it."""

    def put(self, slot: int, adapter: AdapterWeights) -> None: ...


class AdapterProgram(Protocol):
    """A program with adapters, on the weights and the KV cache of the model's own; they run in turn.

    Of a device that draws tokens it is an execution.ahead.AheadDevice, and either is fed what the other drew.
    """

    def run(self, inputs: StepInputs) -> StepOutputs: ...


class AdapterRunner:
    """Invariant: before a step is computed, each slot that its work runs in holds the adapter that the plan names.

    Adapters are known by numbers, each of which stands for one adapter for ever.
    """

    def __init__(self, slots: Slots, made: Callable[[], AdapterProgram]) -> None:
        """Args: made: compiles the program with adapters, when the first step wants it."""
        self._slots = slots
        self._make = made
        self._program: AdapterProgram | None = None
        self._adapters: dict[int, AdapterWeights] = {}
        #: slot -> adapter that was put there
        self._held: dict[int, int] = {}

    @property
    def made(self) -> AdapterProgram | None:
        """The program with adapters, if a step wanted it already."""
        return self._program

    @property
    def numbers(self) -> set[int]:
        """Of the adapters that are known."""
        return set(self._adapters)

    def add(self, number: int, adapter: AdapterWeights) -> None:
        """Let plans name an adapter. Between steps."""
        self._adapters[number] = adapter

    def remove(self, number: int) -> None:
        """Let an adapter go that no plan will name again. Between steps."""
        self._adapters.pop(number, None)

    def program(self) -> AdapterProgram:
        """The program with adapters. Cost: when first asked for, that of compiling."""
        if self._program is None:
            self._program = self._make()
        return self._program

    def fill(self, plan: StepPlan) -> None:
        """Put the adapters of a plan into their slots, where they are not there already.

        Raises: InvariantError for one that is not known.
        Cost: a pass over the work; a copy of each adapter that comes in.
        """
        slots = {work.adapter_slot for work in plan.work}
        slots.discard(-1)
        for slot in slots:
            number = plan.adapters[slot]
            if self._held.get(slot) == number:
                continue
            if number is None or number not in self._adapters:
                raise InvariantError(f"step {plan.step_idx}: slot {slot} is to hold adapter {number}, which is unknown")
            self._held.pop(slot, None)
            self._slots.put(slot, self._adapters[number])
            self._held[slot] = number
