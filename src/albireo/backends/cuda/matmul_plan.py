"""How a product with many tokens is cut: the size of tiles, and where sums wait that are made of several parts.

Called by kernels/matmul.py, linear.py and benchmarks. Every plan gives the same bits: an element is the same chains of
ascending k, added in the same order. Does not know tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.backends.cuda.kernels.matmul_smallm import SCALES, TILE_ROWS, group_of, num_parts, part_length
from albireo.backends.cuda.kernels.parts.chain import GROUP, NIBBLES
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS, Tile
from albireo.backends.cuda.workspace import MAX_COUNTERS

#: Where the parts of a sum are added: in registers, beside the part that is computed; in memory, each program its own
#: tile's; or in memory by the last of the programs that compute one part each.
REGISTERS, MEMORY, SPLIT = 0, 1, 2
#: Most tokens whose parts are given to programs of their own; more make tiles enough.
SPLIT_TOKENS = 256
#: Programs that keep sums in memory, at most: one a multiprocessor.
MOST_PROGRAMS = 160
#: The least k of a part for which taking its sums to memory and back is cheaper than smaller tiles.
LEAST_KEPT_PART = 2048


@dataclass(frozen=True, slots=True)
class Plan:
    """tile; mode: REGISTERS, MEMORY or SPLIT, of sums of one part REGISTERS."""

    tile: Tile
    mode: int = REGISTERS


@dataclass(frozen=True, slots=True)
class Device:
    """programs: that run at once, one a multiprocessor. has_tma: Hopper and later, with more shared memory as well."""

    programs: int
    has_tma: bool


def plan_for(num_tokens: int, rows: int, k: int, dtype: str, is_fp8: bool, has_space: bool, device: Device) -> Plan:
    """is_fp8: x too. has_space: whether there is a workspace."""
    parts = num_parts(rows, k, dtype)
    if dtype == "float32":
        return Plan(Tile(64, 64, 32, 3))
    wide = _tile(num_tokens, dtype, is_fp8, device)
    if parts == 1:
        return Plan(wide)
    if has_space and num_tokens <= SPLIT_TOKENS:
        return Plan(wide, SPLIT)
    tiles = -(-rows // wide.rows) * -(-num_tokens // wide.tokens)
    is_long = part_length(k, parts, dtype) >= LEAST_KEPT_PART
    if has_space and is_long and tiles >= device.programs and wide.tokens > 128:
        return Plan(wide, MEMORY)
    # sums of the parts before take as many registers as those of this one
    return Plan(_tile(128, dtype, is_fp8, device))


def _tile(num_tokens: int, dtype: str, is_fp8: bool, device: Device) -> Tile:
    if SCALES.get(dtype) == NIBBLES:
        # a group's own sums and both halves of a byte take registers, too: 128 tokens leave none
        return Tile(128, 64, group_of(dtype), 3 if device.has_tma else 2, 8)
    if is_fp8:
        return Tile(128, 128, GROUP, 4, 8)
    if dtype == "fp8.g128":
        return Tile(128, 128, GROUP, 3, 8)
    return Tile(128, 256, 64, 3, 8) if num_tokens > 128 else Tile(128, 128, 64, 3, 8)


def num_part_elements(rows: int, k: int, dtype: str) -> int:
    """Elements that the largest of all calls keeps in memory, whatever it is."""
    parts = num_parts(rows, k, dtype)
    if parts == 1:
        return 0
    split = parts * -(-rows // 128) * 128 * SPLIT_TOKENS
    kept = MOST_PROGRAMS * 128 * 256 if part_length(k, parts, dtype) >= LEAST_KEPT_PART else 0
    return max(split, kept)


# parts are for matrices of few rows, so that their tiles can be counted
assert MAX_COUNTERS >= -(-SPLIT_TOKENS // FEW_TOKENS) * TILE_ROWS
