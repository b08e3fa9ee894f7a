"""What kernels whose sums are chains (chain.py) read of a weight, and how it is scaled; by launchers and plans.

Does not know tiles.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda.kernels.parts.chain import CHANNELS, GROUPS, MICROSCALED, NIBBLES, UNSCALED
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.encodings import encoding

#: Encodings that are multiplied as bfloat16.
SCALES = {"fp8": CHANNELS, "fp8.g128": GROUPS} | {f"int4.g{group}": NIBBLES for group in (32, 64, 128)}
SCALES |= dict.fromkeys(("fp4.g32", "fp4.g16"), MICROSCALED)


def operands(weight: DeviceMatrix) -> tuple[torch.Tensor, int]:
    """What the kernels read of a weight, and how it is scaled. Codes are read as words."""
    if weight.dtype not in SCALES:
        return weight.codes, UNSCALED
    return weight.codes.view(torch.int32), SCALES[weight.dtype]


def zeros_of(weight: DeviceMatrix) -> torch.Tensor | None:
    """What the kernels read of each group beside its scale, or for it: see chain()."""
    return weight.gamma if SCALES.get(weight.dtype) == MICROSCALED else weight.zero


def is_of_4_bits(dtype: str) -> bool:
    """Whether a word has eight codes."""
    return SCALES.get(dtype) in (NIBBLES, MICROSCALED)


def group_of(dtype: str) -> int:
    """Inputs of a group of 4 bits; of others 0."""
    return (encoding(dtype).group or 0) if is_of_4_bits(dtype) else 0
