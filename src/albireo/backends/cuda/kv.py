"""DeviceKV: the paged KV cache in device memory.

Owned by model.py, written by qk_norm_rope_kv_write, read by attention, copied by copy_blocks. Does not know sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from albireo.backends.cuda.catalog import check_cache
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

    Raises: UnsupportedModel where layers differ in shape.
    """

    def __init__(self, layout: KVLayout, num_blocks: int, device: torch.device) -> None:
        check_cache(layout)
        self.layout = layout
        self.num_blocks = num_blocks
        shape = (num_blocks, layout.num_kv_heads, layout.block_size, layout.padded_head_dim)
        dtype = TORCH_DTYPES[layout.dtype]
        #: [L, 2, N, K, P, D]: keys, then values of each layer; of keys alone [L, 1, N, K, P, D].
        self.numbers = torch.zeros((layout.num_layers, layout.num_parts, *shape), dtype=dtype, device=device)
        #: [L, 2, N, K, P] float32, or None where elements are numbers themselves.
        self.scales: torch.Tensor | None = None
        if layout.dtype in KV_CODES:
            self.scales = torch.zeros((layout.num_layers, 2, *shape[:3]), dtype=torch.float32, device=device)
        self.layers = tuple(self._layer(index) for index in range(layout.num_layers))

    def _layer(self, index: int) -> LayerKV:
        k, v = self.numbers[index, 0], self.numbers[index, -1]
        if self.scales is None:
            return LayerKV(k, v)
        return LayerKV(k, v, self.scales[index, 0], self.scales[index, 1])
