"""Results: what steps give, on its way to host memory while the next step is already computed.

Owned by model.py. A few sets of page-locked arrays in turn; each copy is followed by an event that collect() waits for.
An array has host memory from when it is first sent: whole logits are asked for by few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from albireo.backends.cuda.page_locked import page_locked

#: A step is waited for while the next is under way, and a third may be computed in between.
_SETS = 3


@dataclass(frozen=True, slots=True)
class Ticket:
    """A step's results, once event has come. rows: of each array."""

    turn: int
    rows: Mapping[str, int]
    event: Any


class Results:
    """Room for the largest results.

    Args: like: tensors of their largest shapes, on the device. is_alone: each is waited for, and read, before the next.
    """

    def __init__(self, like: Mapping[str, torch.Tensor], is_alone: bool = False) -> None:
        self._is_cuda = any(tensor.is_cuda for tensor in like.values())
        self._like = like
        self._sets: list[dict[str, torch.Tensor]] = [{} for _ in range(1 if is_alone else _SETS)]
        self._turn = 0

    def send(self, tensors: Mapping[str, torch.Tensor]) -> Ticket:
        """Begin copying behind what is under way. What a step as many turns ago gave is overwritten."""
        turn, self._turn = self._turn, (self._turn + 1) % len(self._sets)
        for name, tensor in tensors.items():
            if len(tensor):
                self._host(turn, name)[: len(tensor)].copy_(tensor, non_blocking=True)
        event = torch.cuda.Event() if self._is_cuda else None
        if event is not None:
            event.record()
        return Ticket(turn, {name: len(tensor) for name, tensor in tensors.items()}, event)

    def receive(self, ticket: Ticket) -> dict[str, NDArray[Any]]:
        """Wait, and give the arrays."""
        if ticket.event is not None:
            ticket.event.synchronize()
        return {name: self._received(ticket.turn, name, rows) for name, rows in ticket.rows.items()}

    def _received(self, turn: int, name: str, rows: int) -> NDArray[Any]:
        like = self._like[name]
        found = self._host(turn, name)[:rows] if rows else torch.zeros((0, *like.shape[1:]), dtype=like.dtype)
        array: NDArray[Any] = found.numpy()
        return array

    def _host(self, turn: int, name: str) -> torch.Tensor:
        rooms = self._sets[turn]
        if name not in rooms:
            like = self._like[name]
            rooms[name] = page_locked(tuple(like.shape), like.dtype, is_locked=self._is_cuda)
        return rooms[name]
