"""Sums of a tile that wait in memory: those of the parts before, or of the programs beside; and tiles cut in pieces.

Used inside kernels/matmul.py, matmul_e4m3.py and moe_grouped_matmul.py. A tile's place has its pieces behind each
other, [rows, tokens of a piece] each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.matmul_plan import MEMORY, MOST_PROGRAMS, SPLIT
from albireo.backends.cuda.workspace import counters_and_parts

#: Tokens whose sums are finished at once, of which threads have registers enough: without and with an activation.
_PIECE, _WIDE_PIECE = 64, 128


def programs_and_space(
    tile: Tile, mode: int, count: int, parts: int, chip: Chip, workspace: torch.Tensor | None, unused: torch.Tensor
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Programs of a launch, counters, and where parts of sums wait. Args: count: tiles; unused: for what none reads."""
    elements = tile.rows * tile.tokens
    if mode == SPLIT:
        return parts * count, *counters_and_parts(workspace, parts * count * elements)
    if mode == MEMORY:
        programs = min(MOST_PROGRAMS, chip.multiprocessors, count)
        return programs, unused, counters_and_parts(workspace, programs * elements)[1]
    return count, unused, unused


@triton.constexpr_function
def pieces_of(tokens: int, is_wide: bool) -> int:
    """Pieces of a tile of so many tokens: 1, 2 or 4."""
    return max(1, tokens // (_WIDE_PIECE if is_wide else _PIECE))


@triton.jit
def piece(sums, i: tl.constexpr, COUNT: tl.constexpr):
    """[rows, tokens] -> the i-th of COUNT (1, 2 or 4) cuts of its tokens, in the registers where they are."""
    if COUNT == 1:
        return sums
    elif COUNT == 2:
        left, right = _halves(sums)
        return right if i else left
    else:
        tl.static_assert(COUNT == 4)
        left, right = _halves(sums)
        return piece(right if i >= 2 else left, i % 2, 2)


@triton.jit
def _halves(sums):
    return tl.split(tl.permute(tl.reshape(sums, (sums.shape[0], 2, sums.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def _place(ROWS: tl.constexpr, TOKENS: tl.constexpr):
    return tl.arange(0, ROWS)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]


@triton.jit
def keep(space, sums, COUNT: tl.constexpr, before=None):
    """Put a tile's sums into space, in COUNT pieces; where before, if given, is not 0 added to those that are there."""
    ROWS: tl.constexpr = sums.shape[0]
    TOKENS: tl.constexpr = sums.shape[1] // COUNT
    at = _place(ROWS, TOKENS)
    if before is not None:
        tl.debug_barrier()  # whichever thread stored them
    for i in tl.static_range(COUNT):
        some = piece(sums, i, COUNT)
        to = space + i * (ROWS * TOKENS) + at
        if before is not None:
            some += tl.load(to, mask=at < tl.minimum(before, 1) * (ROWS * TOKENS), other=0.0)
        tl.store(to, some)


@triton.jit
def kept(space, ROWS: tl.constexpr, TOKENS: tl.constexpr):
    """[ROWS, TOKENS] sums of a piece, that this program or another one kept."""
    return tl.load(space + _place(ROWS, TOKENS), cache_modifier=".cg")
