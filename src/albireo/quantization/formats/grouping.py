"""From the groups of a format to those of an encoding: which encoding holds them, and scales laid out for it.

Called by the format files. Does not know formats.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import ENCODINGS, encoding
from albireo.quantization.encoded import F32, U8, Encoded, storable_scale

_GROUPS = sorted({e.group for e in ENCODINGS.values() if e.kind == "integer" and e.group})
ROUNDED_NOTE = "float32 scales of groups are rounded to 16 significant bits (by at most 1 part in 131,072)"
_T = TypeVar("_T", bound=np.generic)


def integer_encoding(bits: int, group: int, k: int) -> str | None:
    """The encoding of kind integer, with a zero for each group, for codes of up to 8 bits.

    Args: group: inputs that share a scale; k or more: the whole row.
    Returns: None when no encoding has groups that divide these.
    """
    sizes = [size for size in _GROUPS if group >= k or group % size == 0]
    if not sizes:
        return None
    size = max(sizes)
    # groups of 16 are there for bytes only
    return f"int{4 if bits <= 4 and size > 16 else 8}.g{size}"


def whole_or(group: int) -> tuple[int, int]:
    """group and k, as integer_encoding takes them, of a group that settings name; -1 is a whole row of any length."""
    return (group, max(group, 0) + 1) if group > 0 else (1, 1)


def spread(of_groups: NDArray[_T], group: int, k: int, name: str) -> NDArray[_T]:
    """[N, groups of the format] -> [N, groups of the encoding]."""
    e = encoding(name)
    size = k if e.group is None else e.group
    return np.ascontiguousarray(of_groups[:, np.arange(e.num_groups(k)) * size // group])


def integer_matrix(codes: U8, scale: F32, zero: NDArray[np.integer], group: int, name: str) -> Encoded:
    """Codes [N, K] with scale and zero [N, groups of the format], in an encoding of kind integer.

    scale may be of any 16 significant bits; others are rounded, except in int8 without groups.
    """
    e, k = encoding(name), codes.shape[1]
    scale = spread(scale, group, k, name)
    return Encoded(
        e,
        np.ascontiguousarray(codes),
        scale if e.group is None else storable_scale(scale),
        zero=spread(zero.astype(np.uint8), group, k, name),
    )


def group_of_inputs(g_idx: NDArray[np.integer], num_groups: int) -> int | None:
    """Inputs in a group, when input i is in group i // size throughout; None for any other order."""
    size = int(np.count_nonzero(g_idx == g_idx[0])) if len(g_idx) else 1
    ordered = np.arange(len(g_idx)) // max(size, 1)
    return size if np.array_equal(g_idx, ordered) and -(-len(g_idx) // size) == num_groups else None


def group_size(k: int, num_groups: int, sizes: tuple[int, ...]) -> int | None:
    """Inputs in a group, of a matrix with num_groups of them: one of sizes, where one fits, else k / num_groups.

    Returns: None when neither fits.
    """
    for size in sizes:
        if size > 0 and -(-k // size) == num_groups:
            return size
    return k // num_groups if num_groups and k % num_groups == 0 else None
