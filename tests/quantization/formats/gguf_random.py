"""Blocks of GGUF of any bits, for types that the gguf package reads and cannot write."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.formats.gguf_blocks import BLOCKS

#: Byte of the float16 scale of a block, or of several; 0 of what is not here.
_PLACES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "NVFP4": ()}
_PLACES |= dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2))


def random_blocks(kind: str, count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[count, bytes] of any bits, scales too: see scaled()."""
    blocks = rng.integers(0, 256, (count, BLOCKS[kind].num_bytes)).astype(np.uint8)
    if kind == "NVFP4":
        blocks[:, :4] &= 0x7F  # which have no sign; the largest stands for 0
    return blocks


def scaled(kind: str, blocks: NDArray[np.uint8], scales: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The same blocks, whose scales are these.

    Args: scales: what broadcasts to [2, blocks]: the first of each block, and the second where it has one.
    """
    blocks = blocks.copy()
    words = np.broadcast_to(scales.astype("<f2"), (2, len(blocks))).copy().view("<u2")
    if kind == "IQ1_M":  # in the highest four bits of four words
        for i in range(4):
            blocks[:, 49 + 2 * i] = (blocks[:, 49 + 2 * i] & 15) | (((words[0] >> (4 * i)) & 15) << 4)
        return blocks
    for place, word in zip(_PLACES.get(kind, (0,)), words, strict=False):
        blocks[:, place : place + 2] = word[:, None].view(np.uint8)
    return blocks
