"""The native KV cache as plain arrays: what the layout of csrc/include/albireo/types.h (KVShape) means, read back.

Called by model.py for whoever compares the cache with a reference. Does not know sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.graph.kv_layout import KVLayout

F32 = NDArray[np.float32]

#: Positions of a sub-block; a block of fewer is one sub-block.
_SUB_BLOCK = 16
_STORED: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}
#: The number of each code of e4m3; those of NaN are read as 480.
_CODE = np.arange(128)
_POSITIVE = np.ldexp((_CODE & 7) + 8.0 * (_CODE > 7), np.maximum(_CODE >> 3, 1) - 10)
_E4M3 = np.concatenate([_POSITIVE, -_POSITIVE]).astype(np.float32)


def widen(stored: NDArray[np.uint8], dtype: str) -> F32:
    """Bytes of numbers of dtype as float32, flat; of codes the numbers they stand for, without a scale."""
    if dtype == "fp8":
        return _E4M3[stored]
    numbers = stored.view(_STORED[dtype])
    if dtype == "bfloat16":
        return np.asarray((numbers.astype(np.uint32) << 16).view(np.float32))
    return np.asarray(numbers.astype(np.float32))


def read_slots(layer: NDArray[np.uint8], kv: KVLayout, slots: NDArray[np.int32]) -> tuple[F32, F32]:
    """k, v: [len(slots), K, D] of one layer's cache, whose bytes are given; v is k where values are channels of keys.

    A block holds, head after head and sub-block after sub-block, K then V: bfloat16 and codes K [D/2][S][2] and V
    [S/2][D][2], other types K [D][S] and V [S][D], where S are the positions of a sub-block and D is padded to 16;
    behind codes the float32 scales of K [S] and of V [S]. Where several positions have one entry, these are positions.
    Cost: the blocks that the slots lie in are widened.
    """
    entries, width = kv.entries(0), kv.padded_head_dim
    sub = min(entries, _SUB_BLOCK)
    blocks, which = np.unique(slots // kv.block_size, return_inverse=True)
    lead = (len(blocks), kv.num_kv_heads, entries // sub)
    stored = layer.reshape(-1, kv.block_bytes)[blocks].reshape(*lead, -1)
    num_bytes = stored.shape[-1] - 2 * sub * kv.scale_bytes
    parts = widen(stored[..., :num_bytes].reshape(-1), kv.dtype).reshape(*lead, kv.num_parts, sub * width)
    k, v = parts[..., 0, :], parts[..., -1, :]
    if kv.dtype == "bfloat16" or kv.scale_bytes:
        k = k.reshape(*lead, width // 2, sub, 2).transpose(0, 1, 2, 4, 3, 5)
        v = v.reshape(*lead, sub // 2, width, 2).transpose(0, 1, 2, 3, 5, 4)
    else:
        k = k.reshape(*lead, width, sub).transpose(0, 1, 2, 4, 3)
    offsets = slots % kv.block_size * entries // kv.block_size
    if kv.scale_bytes:
        scales = np.ascontiguousarray(stored[..., num_bytes:]).view(np.float32).reshape(*lead, 2, sub, 1)
        k, v = (a.reshape(*lead, sub, width) * scales[..., i, :, :] for i, a in enumerate((k, v)))
    if not kv.has_values:
        v = k
    k, v = (a.reshape(len(blocks), kv.num_kv_heads, entries, width)[which, :, offsets] for a in (k, v))
    return k[:, :, : kv.head_dim], v[:, :, : kv.head_dim]


def token_numbers(rows: NDArray[np.uint8], cols: int) -> NDArray[np.float32]:
    """[T, cols] the numbers that rows of 8-bit codes with a scale stand for; rows: [T, bytes] as csrc's tokens.h."""
    start = -(-cols // 64) * 64
    scale = rows[:, start : start + 4].copy().view(np.float32)
    return rows[:, :cols].view(np.int8).astype(np.float32) * scale
