"""Nested encodings without nests: the same matrix with a float32 for each group, for kernels that know no others.

Called where weights are brought into a backend's memory: ranks hold no nests, which they would have to cut. See
compiler/passes/plain_scales.py, which gives graphs such types.
"""

from __future__ import annotations

import numpy as np

from albireo.encodings import encoding, is_encoding, plain_encoding
from albireo.quantization.encoded import Encoded, gamma_values, nested_numbers, nested_zero, storable_scale


def is_held_as(stored: str, wanted: str) -> bool:
    """Whether a matrix in an encoding can be given in another: its own, or that without nests. Args: names; of stored
    also what is none."""
    return stored == wanted or (is_encoding(stored) and plain_encoding(encoding(stored)).name == wanted)


def held_as(matrix: Encoded, wanted: str) -> Encoded:
    """A matrix in one of those two."""
    return matrix if matrix.encoding.name == wanted else plain(matrix)


def plain(nested: Encoded) -> Encoded:
    """The matrix in plain_encoding()."""
    e = nested.encoding
    if not e.is_nested:
        return nested
    if e.name == "q3_k":
        return _products(nested)
    scale, offset = nested.of_groups()
    if offset is not None:
        return Encoded(plain_encoding(e), nested.codes, scale, offset=offset)
    if e.name == "iq3_s":  # -15, -13 ... 15
        return Encoded(plain_encoding(e), nested.codes, 2 * scale, offset=-15 * scale)
    codes, zero = nested.codes, nested_zero(e)
    if e.kind == "nested table":
        codes, zero = (nested_numbers(e, codes) + 128).astype(np.uint8), 128
    return Encoded(plain_encoding(e), codes, storable_scale(scale), np.full(scale.shape, zero, np.uint8))


def _products(nested: Encoded) -> Encoded:
    """Scales of 6 bits times codes of 3 are integers from -124 to 128, of which the negative ones are all int8 numbers:
    so the nest's float16, its sign turned, is the only scale."""
    assert nested.gamma is not None and nested.encoding.group is not None
    _, k = nested.shape
    gammas = np.repeat(gamma_values(nested.encoding)[nested.gamma].astype(np.int16), nested.encoding.group, axis=1)
    products = -((nested.codes.astype(np.int16) - nested_zero(nested.encoding)) * gammas[:, :k])
    e = plain_encoding(nested.encoding)
    scale = np.repeat(-nested.scale, 2, axis=1)[:, : e.num_groups(k)]
    codes = np.ascontiguousarray((products + 128).astype(np.uint8))
    return Encoded(e, codes, scale, np.full(scale.shape, 128, np.uint8))
