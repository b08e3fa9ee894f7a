"""DeviceKV: the paged KV cache in device memory.

Owned by model.py, written by qk_norm_rope_kv_write, read by attention, copied by copy_blocks. Does not know sequences.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import torch

from albireo.dtypes import KV_CODES
from albireo.graph.program import KVLayout

TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int32": torch.int32,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's cache: N blocks, K heads, P positions a block, D numbers a head (a multiple of 16, zeros behind).

    Fields:
        k, v: [N, K, P, D] of the cache's type; v is k where values are channels of keys.
        k_scale, v_scale: [N, K, P] float32 where elements are codes: a number is code * scale; else None.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scale: torch.Tensor | None = None
    v_scale: torch.Tensor | None = None


class DeviceKV:
    """num_blocks blocks of every layer, zeros at first. Block 0 is the null block: padding rows write it.

    Layers of one shape are parts of one array, so that a block is copied in all of them by one launch.
    """

    def __init__(self, layout: KVLayout, num_blocks: int, device: torch.device) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self.device = device
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
        self.layers = tuple(self._layer(list(counts).index(layer), next(places[layer])) for layer in each)

    def _shape(self, layer: KVLayout) -> tuple[int, int, int, int]:
        return self.num_blocks, layer.num_kv_heads, layer.block_size, layer.padded_head_dim

    def _layer(self, array: int, place: int) -> LayerKV:
        numbers = self.numbers[array][place]
        if not self.scales:
            return LayerKV(numbers[0], numbers[-1])
        return LayerKV(numbers[0], numbers[-1], *self.scales[array][place])
