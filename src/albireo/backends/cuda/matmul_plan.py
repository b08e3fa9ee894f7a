"""How a product with many tokens is cut: the size of tiles, and where sums wait that are made of several parts.

Called by kernels/matmul.py, matmul_e4m3.py, linear.py, expert_plan.py and benchmarks. Every plan gives the same bits:
an element is the same chains of ascending k, added in the same order. Does not know tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.parts.chain import GROUP
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES, is_of_4_bits
from albireo.backends.cuda.sum_parts import num_parts, part_length
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


def plan_for(num_tokens: int, rows: int, k: int, dtype: str, has_space: bool, chip: Chip) -> Plan:
    """has_space: whether there is a workspace."""
    if dtype == "float32":
        is_split = has_space and num_tokens <= SPLIT_TOKENS and num_parts(rows, k, dtype) > 1
        return Plan(Tile(64, 64, 32, 3), SPLIT if is_split else REGISTERS)
    wide, narrow = (tile_for(tokens, dtype, chip) for tokens in (num_tokens, 128))
    return _plan(num_tokens, rows, k, dtype, has_space, chip, wide, narrow)


def e4m3_plan_for(num_tokens: int, rows: int, k: int, dtype: str, is_gated: bool, has_space: bool, chip: Chip) -> Plan:
    """Of e4m3 on both sides. is_gated: gate and up rows take turns, and codes of 128 outputs are of 256 of them."""
    wide = e4m3_tile_for(num_tokens, is_gated, chip)
    narrow = Tile(256, 64, GROUP, wide.stages, 8) if is_gated else e4m3_tile_for(128, is_gated, chip)
    return _plan(num_tokens, rows, k, dtype, has_space, chip, wide, narrow)


def _plan(
    num_tokens: int, rows: int, k: int, dtype: str, has_space: bool, chip: Chip, wide: Tile, narrow: Tile
) -> Plan:
    """narrow: a tile whose sums leave registers for those of the parts before."""
    parts = num_parts(rows, k, dtype)
    if parts == 1:
        return Plan(wide)
    tiles = -(-rows // wide.rows) * -(-num_tokens // wide.tokens)
    if has_space and num_tokens <= SPLIT_TOKENS and _can_split(parts, rows) and tiles <= MAX_COUNTERS:
        return Plan(wide, SPLIT)
    is_long = part_length(k, parts) >= LEAST_KEPT_PART
    is_wide = wide.rows * wide.tokens > 128 * 128
    if has_space and is_long and tiles >= min(MOST_PROGRAMS, chip.multiprocessors) and is_wide:
        return Plan(wide, MEMORY)
    # sums of the parts before take as many registers as those of this one
    return Plan(narrow)


def _can_split(parts: int, rows: int) -> bool:
    """Two rounds of programs at most; what would be more are tiles enough, and much memory."""
    return parts * -(-rows // 128) <= 2 * MOST_PROGRAMS


def e4m3_tile_for(num_tokens: int, is_gated: bool, chip: Chip) -> Tile:
    """Tokens are the rows of the matrix unit's tile; of 256 weight rows a thread's sums take turns in two halves."""
    if not chip.has_tma:
        return Tile(256, 64, GROUP, 2, 8) if is_gated else Tile(128, 64, GROUP, 4, 8)
    if is_gated and chip.has_tcgen05:
        return Tile(256, 64, GROUP, 4, 8)
    if is_gated or (chip.has_wgmma and num_tokens > 128):
        return Tile(256, 128, GROUP, 3, 8)
    return Tile(128, 128, GROUP, 4, 8)


def tile_for(num_tokens: int, dtype: str, chip: Chip) -> Tile:
    """k: of words whole ones, 128 inputs of e4m3 and 256 of 4 bits."""
    if is_of_4_bits(dtype):
        if chip.has_tcgen05:
            return Tile(64, 64, 2 * GROUP, 3, 4)  # Triton 3.6 makes a trap of more rows
        # groups' own sums and numbers take registers, too: 128 tokens leave none, and of eight groups a step 64 do not
        return Tile(128, 32 if dtype == "int4.g32" else 64, 2 * GROUP, 3, 8)
    if dtype in SCALES and not chip.has_wgmma:
        return Tile(128, 64, GROUP, 3, 8)  # Triton 3.6 makes a trap of 128 tokens for 10.0
    if dtype == "fp8":
        return Tile(128, 256, GROUP, 2, 8) if num_tokens > 128 else Tile(128, 128, GROUP, 3, 8)
    if dtype == "fp8.g128":
        return Tile(128, 128, GROUP, 3, 8)
    return Tile(128, 256, 64, 3, 8) if num_tokens > 128 else Tile(128, 128, 64, 3, 8)


def num_part_elements(rows: int, k: int, dtype: str) -> int:
    """Elements that the largest of all calls keeps in memory, whatever it is."""
    parts = num_parts(rows, k, dtype)
    if parts == 1:
        return 0
    split = parts * -(-rows // 256) * 256 * SPLIT_TOKENS if _can_split(parts, rows) else 0
    kept = MOST_PROGRAMS * 128 * 256 if part_length(k, parts) >= LEAST_KEPT_PART else 0
    return max(split, kept)
