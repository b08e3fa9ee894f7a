"""How a grouped product of experts is cut: tiles, and whether the parts of a sum have programs of their own.

Called by kernels/moe_grouped_matmul.py, expert_linear.py and benchmarks. Every plan gives the same bits, those of a
linear with an expert's matrix alone. Numbers here are guesses until `first_hour.py --parts experts` has timed them.
Does not know tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.expert_list import most_items, tile_width
from albireo.backends.cuda.kernels import matmul_e4m3_smallm, matmul_groups, matmul_int8, matmul_smallm
from albireo.backends.cuda.kernels.parts.chain import CHANNELS, GROUPS
from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, FEW_TOKENS, Tile
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES, is_of_4_bits
from albireo.backends.cuda.matmul_plan import e4m3_tile_for, tile_for
from albireo.backends.cuda.sum_parts import num_parts
from albireo.backends.cuda.workspace import MAX_COUNTERS
from albireo.encodings import encoding, is_encoding

#: Most tokens whose experts' sums may be split over programs; more make tiles enough.
_SPLIT_TOKENS = 64
#: Types of weights whose tiles may be high, where a sum is one part, and long enough to make up for beginning and end.
_WIDE = ("bfloat16", "float16")
_WIDE_ROWS, _LEAST_WIDE_K = 256, 2048
#: Programs that share out the tiles, at most; None: one a tile, as many as there can be, and those without end at once.
PROGRAMS: int | None = None


@dataclass(frozen=True, slots=True)
class ExpertPlan:
    """tile; is_split: a program for each part of a sum, else one for all; by_tma: weights come by descriptors."""

    tile: Tile
    is_split: bool
    by_tma: bool


def plan_for(
    num_tokens: int, width: int, most: int, rows: int, k: int, dtype: str, is_e4m3: bool, chip: Chip
) -> ExpertPlan:
    """width: pairs of a tile. most: items at most. rows: of an expert's matrix. is_e4m3: x too."""
    if dtype == "int8":
        return ExpertPlan(matmul_int8.tile_for(width, rows, k, 1), False, False)
    if width > FEW_TOKENS or (width == widest(dtype, chip) and is_of_4_bits(dtype)):
        tile, by_tma = _tile_of_many(dtype, is_e4m3, chip), chip.has_tma
        is_whole = rows % _WIDE_ROWS == 0 and k >= _LEAST_WIDE_K and num_parts(rows, k, dtype) == 1
        if dtype in _WIDE and by_tma and tile.tokens == 128 and is_whole:
            tile = replace(tile, rows=_WIDE_ROWS)  # fewer bytes of L2 for a product, and one program a multiprocessor
    else:
        few = matmul_e4m3_smallm.tile_for(width) if is_e4m3 else matmul_smallm.tile_for(width, dtype)
        tile, by_tma = few, False
    count = most * -(-rows // tile.rows)
    # of more tokens few tiles are large ones, for whose parts there is no room (num_part_elements)
    is_split = num_tokens <= _SPLIT_TOKENS and num_parts(rows, k, dtype) > 1
    return ExpertPlan(tile, is_split and count < min(BUSY_TILES, MAX_COUNTERS), by_tma)


def widest(dtype: str, chip: Chip) -> int:
    """Most pairs of a tile of such weights, whatever they meet."""
    if meets_codes(dtype):
        return matmul_groups.most_tokens(encoding(dtype), chip)
    if dtype == "float32" or (SCALES.get(dtype) is not None and not chip.has_tma):
        return FEW_TOKENS
    kinds = (False, True) if SCALES.get(dtype) in (CHANNELS, GROUPS) else (False,)
    return min(128, *(_tile_of_many(dtype, is_e4m3, chip).tokens for is_e4m3 in kinds))


def meets_codes(dtype: str) -> bool:
    """Whether inputs share scales in groups, and meet codes of 8 bits alone; kernels/moe_groups.py. 4-bit ones with
    zero points, and floats, do where the model does not compute in bfloat16."""
    return is_encoding(dtype) and dtype not in SCALES and dtype != "int8"


def _tile_of_many(dtype: str, is_e4m3: bool, chip: Chip) -> Tile:
    return e4m3_tile_for(128, False, chip) if is_e4m3 else tile_for(128, dtype, chip)


def num_part_elements(
    num_experts: int, top_k: int, rows: int, k: int, dtype: str, chip: Chip, repeats: bool = False
) -> int:
    """Elements of the parts of the largest call. Args: repeats: see ExpertList."""
    largest = 0
    if dtype == "int8" or meets_codes(dtype):
        return largest
    for tokens in range(1, _SPLIT_TOKENS + 1):
        width = min(widest(dtype, chip), tile_width(tokens, num_experts, top_k))
        most = most_items(tokens, num_experts, top_k, width, repeats)
        plan = plan_for(tokens, width, most, rows, k, dtype, False, chip)
        if plan.is_split:
            tiles = most * -(-rows // plan.tile.rows)
            largest = max(largest, num_parts(rows, k, dtype) * tiles * plan.tile.rows * max(16, plan.tile.tokens))
    return largest
