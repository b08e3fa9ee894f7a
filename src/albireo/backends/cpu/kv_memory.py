"""KVMemory: the KV cache of one model in memory, and the block tables of a step as kernels read them.

Owned by model.py. Does not know sequences.

One group of layers: each layer has its blocks in a row, behind those of the layer before. Several groups: a block holds
the layers of one of them side by side, whichever has it, and is where all of its bytes are. A kernel knows layers whose
blocks lie in a row; it is told a layer's blocks in units of these, see KVLayout.units, or how far it is from one to the
next, where layers of a group differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.kv_view import read_slots
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout

Ints = NDArray[np.int32]


class KVMemory:
    """num_blocks blocks, zeros at first. The null block stays so: kernels that begin before a window read it."""

    def __init__(self, layout: KVLayout, num_blocks: int) -> None:
        for layer in layout.layers:
            shape = (layer.dtype, layer.num_kv_heads, layer.head_dim, layer.block_size, layer.has_values)
            if _native.block_bytes(*shape, *layer.every) != layer.block_bytes:
                raise InvariantError(f"the native core has blocks of another size for {layer}")
        self.layout, self.num_blocks = layout, num_blocks
        self.memory = _native.Memory(num_blocks * layout.block_bytes)
        self._sizes = layout.sizes
        self._units = layout.units
        if layout.groups:
            self._starts = [layout.before(layer) for layer in range(layout.num_layers)]
        else:
            self._starts = [num_blocks * size for size in accumulate(self._sizes, initial=0)][:-1]

    def address(self, layer: int) -> int:
        """Where the first block of a layer is."""
        return self.memory.address + self._starts[layer]

    def tables(self, inputs: StepInputs) -> tuple[Ints, Ints]:
        """See StepInputs.of_groups()."""
        return inputs.of_groups(self._units, self.layout.block_size)

    def cached(self, layer: int, slots: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of what a layer holds in slots of a step with one block table."""
        layout, start, size = self.layout, self._starts[layer], self._sizes[layer]
        group, place = layout.place(layer)
        blocks = layout.block_of(layer, slots // layout.block_size)
        if stride := layout.stride(layer):
            stored = self.memory.view().reshape(-1, stride)[:, start : start + size]
        else:
            num_units = self.num_blocks * self._units[group] - (place if layout.groups else 0)
            stored = self.memory.view()[start : start + num_units * size]
        return read_slots(stored, layout.layers[layer], blocks * layout.block_size + slots % layout.block_size)

    def fill(self, num_blocks: int, value: int) -> None:
        """Set all bytes of the first blocks. Pages that were never written are all one page, which is in a cache."""
        for start, size in self._runs():
            self.memory.view()[start : start + num_blocks * size] = value

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (source, target), in order."""
        for start, size in self._runs():
            base = self.memory.address + start
            for source, target in pairs:
                _native.copy(base + target * size, base + source * size, size)

    def content(self, block: int) -> list[memoryview]:
        """All bytes of a block, in parts, as they lie there."""
        view = self.memory.view().data
        return [view[start + block * size : start + (block + 1) * size] for start, size in self._runs()]

    def _runs(self) -> list[tuple[int, int]]:
        """Parts of blocks that lie in a row, all of them: where the first begins, and the size of each."""
        if self.layout.groups:
            return [(0, self.layout.block_bytes)]
        return list(zip(self._starts, self._sizes, strict=True))
