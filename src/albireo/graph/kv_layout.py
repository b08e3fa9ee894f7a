"""KVLayout: what a block of the KV cache holds, and which layers' blocks are the same.

Made by compiler/emit.py, a part of every Program; read by backends, which place it in memory, and by whoever counts
bytes. Does not know sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from albireo.dtypes import KV_CODES, itemsize
from albireo.errors import InvariantError

#: Of a block group: how many positions a token sees, its own included; None: all.
Window = int | None


@dataclass(frozen=True, slots=True)
class KVLayout:
    """Shape of the KV cache. head_dim is stored padded to 16.

    dtype: of the elements: a compute type, or one of dtypes.KV_CODES.
    has_values: else values are channels of keys, and there are keys alone. keys_alone: layers of which that is so where
        others have values: by their keys positions are chosen.
    every: of each layer, how many positions have one entry of keys, which is there when the last of them is; empty: one
        of each. A block has room for the entries that end in it, or for one where none may: powers of two, so that
        they are in their own sequence's blocks alone, however sequences share those before.
    shapes: KV heads and head_dim of each layer, where layers differ; num_kv_heads and head_dim are those of the first.
    groups: layers of each block group, where there are several: a sequence has a block table for each, and all blocks
        are of one size. Layers of a group are of one shape and lie in a block one behind the other, as many as have
        room; whole layers of each group's shape fill it. Where several positions have one entry, layers of the first
        group may differ, and what they leave of a block is lost. windows: of each group.
    in_chunks: numbers of the groups whose tokens see chunks, as long as their window, from the beginning of their own.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    block_size: int
    has_values: bool = True
    shapes: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    windows: tuple[Window, ...] = (None,)
    in_chunks: tuple[int, ...] = ()
    keys_alone: tuple[int, ...] = ()
    every: tuple[int, ...] = ()

    @property
    def layers(self) -> tuple[KVLayout, ...]:
        """Each layer as a cache of its own."""
        shapes = self.shapes or ((self.num_kv_heads, self.head_dim),) * self.num_layers
        return tuple(
            KVLayout(
                1, *shape, self.dtype, self.block_size, self.keeps_values(layer), every=self.every[layer : layer + 1]
            )
            for layer, shape in enumerate(shapes)
        )

    def entries(self, layer: int) -> int:
        """Of a layer in a block."""
        return max(1, self.block_size // self.every[layer]) if self.every else self.block_size

    def keeps_values(self, layer: int) -> bool:
        """Whether a layer has values beside keys."""
        return self.has_values and layer not in self.keys_alone

    @property
    def padded_head_dim(self) -> int:
        return -(-self.head_dim // 16) * 16

    @property
    def position_bytes(self) -> int:
        """Bytes of the keys and values of one position over all layers, scales and padding included; where several
        have one entry, an equal part of a block, rounded up."""
        if self.every:
            return -(-sum(self.sizes) // self.block_size)
        if self.shapes:
            return sum(layer.position_bytes for layer in self.layers)
        return self.num_layers * self._entry_bytes

    @property
    def _entry_bytes(self) -> int:
        """Of one layer of these heads."""
        of_head = self.padded_head_dim * itemsize(self.dtype) + self.scale_bytes
        return self.num_parts * self.num_kv_heads * of_head

    @property
    def block_bytes(self) -> int:
        """Bytes of one block: of one group, where there are several."""
        sizes = self.sizes
        most = max((sum(sizes[layer] for layer in group) for group in self.groups), default=sum(sizes))
        if not self.groups or not self._is_mixed(self.groups[0]):
            return most
        unit = math.lcm(*(sizes[group[0]] for group in self.groups if not self._is_mixed(group)))
        return -(-most // unit) * unit

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each layer's part of a block."""
        return tuple(self.entries(number) * layer._entry_bytes for number, layer in enumerate(self.layers))

    @property
    def num_groups(self) -> int:
        """Block tables of a sequence."""
        return len(self.windows)

    def place(self, layer: int) -> tuple[int, int]:
        """Which group's blocks a layer is in, and how many layers of its group lie before it in a block."""
        for number, group in enumerate(self.groups):
            if layer in group:
                return number, group.index(layer)
        return 0, layer

    @property
    def units(self) -> tuple[int, ...]:
        """Of each group, how many layers like its own a block holds, as kernels count blocks of one layer.

        1 where there is one group, whose layers a backend places as it likes, and where its layers differ.
        """
        sizes, size = self.sizes, self.block_bytes
        return tuple(1 if self._is_mixed(group) else size // sizes[group[0]] for group in self.groups) or (1,)

    def stride(self, layer: int) -> int:
        """Bytes from a layer's part of a block to that of the next; 0: kernels count in units of it, see units."""
        return self.block_bytes if self.groups and self._is_mixed(self.groups[self.place(layer)[0]]) else 0

    def before(self, layer: int) -> int:
        """Bytes of a block of a group before a layer's part."""
        group, index = self.place(layer)
        sizes = self.sizes
        return sum(sizes[other] for other in self.groups[group][:index])

    def _is_mixed(self, group: tuple[int, ...]) -> bool:
        """Whether layers of a group differ."""
        layers = self.layers
        return len({layers[layer] for layer in group}) > 1

    def block_of(self, layer: int, block: Any) -> Any:
        """What a layer's kernels call a block, or blocks, of a step with one table; see StepInputs.of_groups()."""
        group, _ = self.place(layer)
        return (block * self.num_groups + group) * self.units[group]

    @property
    def num_parts(self) -> int:
        """Of a position: its keys, and its values where there are any."""
        return 2 if self.has_values else 1

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scale of one key or value."""
        return 4 if self.dtype in KV_CODES else 0

    def check(self) -> None:
        """Raises: InvariantError saying which of the promises about groups does not hold."""
        if self.keys_alone and (not self.has_values or not self.shapes or max(self.keys_alone) >= self.num_layers):
            raise InvariantError(
                f"layers {self.keys_alone} have keys alone: of {self.num_layers} whose shapes are said"
            )
        if self.every:
            are_powers = all(each > 0 and each & (each - 1) == 0 for each in self.every)
            with_values = [i for i, each in enumerate(self.every) if each > 1 and self.keeps_values(i)]
            if len(self.every) != self.num_layers or not are_powers or with_values:
                raise InvariantError(
                    f"entries are of {self.every} positions: wanted a power of two of each of {self.num_layers} "
                    "layers, which where it is more than 1 keep keys alone"
                )
        if any(not 0 <= group < self.num_groups or self.windows[group] is None for group in self.in_chunks):
            raise InvariantError(f"groups {self.in_chunks} see chunks; windows are {self.windows}")
        if not self.groups:
            if self.num_groups != 1:
                raise InvariantError(f"windows {self.windows} of one group of layers")
            return
        if len(self.groups) != self.num_groups or self.num_groups < 2:
            raise InvariantError(f"{len(self.groups)} groups of layers have {self.num_groups} windows")
        if sorted(layer for group in self.groups for layer in group) != list(range(self.num_layers)):
            raise InvariantError(f"groups {self.groups} are not all of {self.num_layers} layers, each once")
        sizes = self.sizes
        for number, group in enumerate(self.groups):
            if not group or (self._is_mixed(group) and (number > 0 or not self.every)):
                raise InvariantError(f"layers {group} are one group, and differ in shape")
            if not self._is_mixed(group) and self.block_bytes % sizes[group[0]]:
                raise InvariantError(f"a block of {self.block_bytes} bytes is not filled by layers like {group[0]}")
        if None in self.windows[1:]:
            raise InvariantError(f"windows {self.windows}: only the first group may see all positions")
