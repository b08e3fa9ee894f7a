"""ReferenceKV: the KV cache as plain arrays, addressed by the same slots and block tables as the real one.

Made by tests and by whoever compares a backend; read and written by attention.py. Does not know sequences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array
from albireo.backends.reference.rounding import F32, round_kv
from albireo.errors import InvariantError


class ReferenceKV:
    """One row a slot, one array a layer for k and one for v, where values are stored.

    Invariants: 1. values are rounded to dtype when written; 2. a slot never written holds NaN, so that reading it
    shows.

    states: what recurrent ops keep beside it, see OpCall.
    """

    def __init__(self, num_blocks: int, block_size: int, dtype: str = "float32") -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.dtype = dtype
        self.states: dict[tuple[int, int], Array] = {}
        self._layers: dict[int, tuple[F32, F32 | None]] = {}

    def write(self, layer: int, slots: NDArray[np.int32], k: F32, v: F32 | None) -> None:
        """k, v: [T, K, D] into slots [T]; v None: values are in keys."""
        num_slots = self.num_blocks * self.block_size
        if slots.size and not (slots.min() >= 0 and slots.max() < num_slots):
            raise InvariantError(f"slots {slots.min()}..{slots.max()} leave the cache of {num_slots}")
        if layer not in self._layers:
            shape = (num_slots, *k.shape[1:])
            nothing = [None if part is None else np.full(shape, np.nan, np.float32) for part in (k, v)]
            self._layers[layer] = np.asarray(nothing[0]), nothing[1]
        keys, values = self._layers[layer]
        keys[slots] = round_kv(k, self.dtype)
        if v is not None and values is not None:
            values[slots] = round_kv(v, self.dtype)

    def read(self, layer: int, blocks: NDArray[np.int32], length: int, every: int = 1) -> tuple[F32, F32]:
        """k, v: [length, K, D], the first positions of the sequence whose blocks these are; v is k where it is in k.

        every: so many positions have one entry, in the slot of the last of them: [length // every, K, D].
        """
        positions = (np.arange(length // every) + 1) * every - 1
        slots = blocks[positions // self.block_size] * self.block_size + positions % self.block_size
        keys, values = self._layers[layer]
        found = keys[slots]
        return found, found if values is None else values[slots]
