"""Tiles of linears: how large, and which one a program computes. Weight rows are a tile's rows, tokens its columns."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

#: Most tokens that are few: one tile holds them all.
FEW_TOKENS = 64
#: Of an H100 or H200: programs are to be a whole number of times as many, or nearly.
MULTIPROCESSORS = 132
#: Tiles that keep the multiprocessors of a large GPU busy, two each.
BUSY_TILES = 264
#: Tiles of weight rows whose programs run one after another over the same tokens, so that both stay in L2.
GROUP = tl.constexpr(8)


@dataclass(frozen=True, slots=True)
class Tile:
    """rows: of the weight. tokens, k: of a tile. stages: tiles of k that are on their way at once."""

    rows: int
    tokens: int
    k: int
    stages: int
    warps: int = 4


def tokens_of(num_tokens: int) -> int:
    """Width of a tile of few tokens."""
    return 8 if num_tokens <= 8 else 16 if num_tokens <= 16 else 32 if num_tokens <= 32 else FEW_TOKENS


@triton.jit
def place(program, tiles, slabs):
    """Tile of weight rows and slab of tokens that a program, or a turn of one, computes."""
    group = program // (slabs * GROUP)
    height = tl.minimum(tiles - group * GROUP, GROUP)
    within = program % (slabs * GROUP)
    return group * GROUP + within % height, within // height
