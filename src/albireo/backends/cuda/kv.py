"""DeviceKV: the paged KV cache in device memory.

Owned by model.py, written by qk_norm_rope_kv_write, read by attention, copied by copy_blocks. Does not know sequences.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.dtypes import KV_CODES
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout

TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int32": torch.int32,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


#: Kernels count positions of a layer's cache, and scales of codes, in 32 bits with a sign.
_MOST_COUNTED = 2**31 - 1


def most_blocks(layout: KVLayout) -> int:
    """That kernels can count: of all a GPU's memory can hold, unless a block is a few hundred bytes a layer."""
    counts = [
        layout.block_size * layout.units[layout.place(n)[0]] * (layer.num_kv_heads if layer.dtype in KV_CODES else 1)
        for n, layer in enumerate(layout.layers)
    ]
    return _MOST_COUNTED // max(counts, default=1)


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's cache: N blocks, K heads, P positions a block, D numbers a head (a multiple of 16, zeros behind).

    Fields:
        k, v: [N, K, P, D] of the cache's type, blocks any distance apart where layers that differ share them; v is k
            where values are channels of keys.
        k_scale, v_scale: [N, K, P] float32 where elements are codes: a number is code * scale; else None.
        every: so many positions have one entry, in the block of the last of them; P is of entries then.
        block_size: positions of a block; 0: P.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scale: torch.Tensor | None = None
    v_scale: torch.Tensor | None = None
    every: int = 1
    block_size: int = 0

    @property
    def blocks(self) -> int:
        """Of a sequence, for each P entries: one, but where an entry is of more positions than a block has."""
        return max(1, self.every // (self.block_size or self.k.shape[2]))


class DeviceKV:
    """num_blocks blocks, zeros at first. Block 0 is the null block: padding rows write it.

    Layers of one shape are parts of one array, so that a block is copied in all of them by one launch. Where layers
    form groups a block is a row of an array, in which the layers of whichever group has it lie side by side; a kernel
    is told a layer's blocks in units of these, or of whole blocks, where layers of the group differ.
    """

    def __init__(self, layout: KVLayout, num_blocks: int, device: torch.device) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self.device = device
        if layout.groups:
            self.numbers, self.scales, self.layers = self._in_groups()
            return
        each = layout.layers
        counts = Counter(each)
        #: Of each shape of layers [L, 2, N, K, P, D], keys, then values of each; of keys alone [L, 1, N, K, P, D].
        self.numbers = tuple(
            torch.zeros((count, layer.num_parts, *self._shape(layer)), dtype=TORCH_DTYPES[layer.dtype], device=device)
            for layer, count in counts.items()
        )
        #: Likewise [L, 2, N, K, P] float32; none where elements are numbers themselves.
        self.scales = tuple(
            torch.zeros((count, 2, *self._shape(layer)[:3]), dtype=torch.float32, device=device)
            for layer, count in counts.items()
            if layer.dtype in KV_CODES
        )
        places = {layer: itertools.count() for layer in counts}
        self.layers = tuple(self._layer(layer, list(counts).index(layer), next(places[layer])) for layer in each)

    def _in_groups(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...], tuple[LayerKV, ...]]:
        """As the constructor leaves them, of one array for all layers: [1, 2, N, numbers of a block's keys].

        Raises: InvariantError where layers of one entry a position are in a group that differs.
        """
        layout, each = self.layout, self.layout.layers
        parts, dtype = layout.num_parts, TORCH_DTYPES[layout.dtype]
        # of keys, or of values, that all layers in a block have: of numbers, and of scales
        sizes = [layout.entries(n) * layer.num_kv_heads * layer.padded_head_dim for n, layer in enumerate(each)]
        scales = [layout.block_size * layer.num_kv_heads for layer in each]
        # a group whose layers differ is the first
        whole = layout.groups[-1][0]
        count = layout.units[-1]

        def array(size: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros((1, parts, self.num_blocks, count * size), dtype=dtype, device=self.device)

        def views(stored: torch.Tensor, layer: int, size: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
            """Keys and values of a layer, [units, ...] each, the first unit its own place in the first block."""
            start = layout.place(layer)[1] * size
            return [part.flatten()[start:].view(-1, *shape) for part in stored[0]]

        numbers = array(sizes[whole], dtype)
        kept = array(scales[whole], torch.float32) if layout.dtype in KV_CODES else None
        layers = []
        for number, layer in enumerate(each):
            shape = (layer.num_kv_heads, layout.entries(number), layer.padded_head_dim)
            of_entries = self._of_entries(layer)
            if apart := layout.stride(number) // dtype.itemsize:
                if of_entries["every"] == 1:
                    raise InvariantError(
                        f"layer {number} has an entry of each position in a block of layers that differ: kernels write "
                        "these where such blocks follow one another"
                    )
                strides = (apart, shape[1] * shape[2], shape[2], 1)
                start = layout.before(number) // dtype.itemsize
                k = numbers.flatten()[start:].as_strided((self.num_blocks, *shape), strides)
                layers.append(LayerKV(k, k, **of_entries))
                continue
            k, *v = views(numbers, number, sizes[number], shape)
            of_scales = () if kept is None else views(kept, number, scales[number], shape[:2])
            layers.append(LayerKV(k, v[0] if v else k, *of_scales, **of_entries))
        return (numbers,), () if kept is None else (kept,), tuple(layers)

    def read(self, layer: int, slots: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of what a layer holds, as float32, to be looked at."""
        kv, shape = self.layers[layer], self.layout.layers[layer]
        size, entries = shape.block_size, self.layout.entries(layer)
        blocks = torch.from_numpy(self.layout.block_of(layer, slots // size)).long()
        offsets = torch.from_numpy(slots % size // (size // entries)).long()
        found = []
        for numbers, scales in ((kv.k, kv.k_scale), (kv.v, kv.v_scale)):
            rows = numbers.cpu().float()[blocks, :, offsets]
            if scales is not None:
                rows = rows * scales.cpu()[blocks, :, offsets][..., None]
            found.append(np.asarray(rows[..., : shape.head_dim].numpy(), np.float32))
        return found[0], found[1]

    def _shape(self, layer: KVLayout) -> tuple[int, int, int, int]:
        return self.num_blocks, layer.num_kv_heads, layer.entries(0), layer.padded_head_dim

    def _of_entries(self, layer: KVLayout) -> dict[str, int]:
        (every,) = layer.every or (1,)
        return {"every": every, "block_size": layer.block_size}

    def _layer(self, layer: KVLayout, array: int, place: int) -> LayerKV:
        numbers = self.numbers[array][place]
        if not self.scales:
            return LayerKV(numbers[0], numbers[-1], **self._of_entries(layer))
        return LayerKV(numbers[0], numbers[-1], *self.scales[array][place])
