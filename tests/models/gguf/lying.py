"""Matrices of GGUF files where they lie, against the arrays they are read as."""

from __future__ import annotations

import ctypes

import numpy as np

from albireo.models.checkpoint.weights import Checkpoint
from albireo.quantization.formats.gguf_blocks import BLOCKS, TYPE_NAMES, read_blocks


def assert_blocks_are_what_is_read(checkpoint: Checkpoint) -> int:
    """Of every matrix that can be packed from the file: each row, by its address and type. Returns: how many."""
    count = 0
    for name in checkpoint.encodings:
        lies = checkpoint.blocks(name)
        if lies is None:
            continue
        matrix, (_, k) = checkpoint.encoded(name), lies.shape
        assert lies.shape == matrix.shape and lies.encoding == matrix.encoding.name
        for i, (number, address) in enumerate(zip(lies.types.tolist(), lies.rows.tolist(), strict=True)):
            block = BLOCKS[TYPE_NAMES[number]]
            data = np.frombuffer(ctypes.string_at(address, k // block.size * block.num_bytes), np.uint8)
            row = read_blocks(TYPE_NAMES[number], data, (1, k), name)
            np.testing.assert_array_equal(row.decode(), matrix.rows(i, i + 1).decode(), name)
        count += 1
    return count
