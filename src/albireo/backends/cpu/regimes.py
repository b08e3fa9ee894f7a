"""What a native kernel does depends on how many rows a step has: which way of tiling, by ISA level and rows.

Called by catalog.py, for reports. Says what csrc/kernels/gemm/gemm.inl and its neighbours do, and decides nothing;
tests hold the numbers to those of the C++ headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from albireo.encodings import encoding, is_encoding
from albireo.graph.tuning import ROW_CHUNK, Tuning, bucket_of, row_chunks

#: Steps of K after which, at the latest, the panel is left for the next rows, where nothing was tuned.
STEPS_PER_BLOCK = Tuning().block_steps
#: Rows (token, query head) of a work item of attention, and of long prompts, attention.h; positions handled at once,
#: types.h.
ATTENTION_ROWS, MANY_ROWS, ATTENTION_TILE = 48, 96, 128

#: Most rows of a tall tile of weights in few bits, where there is one (integers.inl): of groups, whose numbers stay in
#: registers beside sums; the same where a token is widened for each dot; of groups that are one sum of whole numbers.
GROUP_ROWS, DEAR_GROUP_ROWS, PROGRESSIVE_ROWS = 12, 6, 24
#: How many such tiles of 12 rows a panel of groups passes at most before it is made to bytes: of fp4, of others.
FP4_PASSES, GROUP_PASSES = 2, 3
#: Longest groups whose panels, of codes of less than 8 bits, are for tall tiles while these take all rows, where there
#: are tile registers.
SMALL_GROUP = 32
#: Vectors of a wide tile of groups, where others have four.
GROUP_VECTORS = 2

_GEMM = ("linear", "expert_linear", "head_linear", "qkv_rope_kv", "head_top")


@dataclass(frozen=True, slots=True)
class Tiles:
    """Register tiles of an ISA level.

    Fields:
        rows, vectors: of a wide tile, vectors of 16 columns.
        tall: most rows of a tall tile, which is one vector wide; 0 where there is none.
        passes: such tiles that rows are shared among.
        has_byte_dot: whether four products of bytes are added in 32 bits at once.
        matrix: rows of a tile register; 0 where there are none.
        matrix_least: least rows that go through them.
        tall_first: whether rows that tall tiles take do not.
    """

    rows: int
    vectors: int
    tall: int
    matrix: int = 0
    matrix_least: int = 16
    passes: int = 1
    has_byte_dot: bool = True
    tall_first: bool = False


TILES = {
    "amx": Tiles(6, 4, 28, 16),
    "avx512bf16": Tiles(6, 4, 28),
    "avx512vnni": Tiles(6, 4, 28),
    "avx512": Tiles(6, 4, 28, has_byte_dot=False),
    "avxvnni": Tiles(6, 1, 0),
    "avx2": Tiles(5, 1, 0, has_byte_dot=False),
    "neonmm": Tiles(6, 1, 0),
    "neondot": Tiles(6, 1, 0),
    "neon": Tiles(6, 1, 0, has_byte_dot=False),
    "scalar": Tiles(4, 1, 0, has_byte_dot=False),
}


def tiles_of(dtype: str, tiles: Tiles) -> Tiles:
    """Those of weights of a type, at a level that has these."""
    if dtype == "bfloat16" or (is_encoding(dtype) and encoding(dtype).kind == "float"):
        return replace(tiles, matrix_least=1)
    if not is_encoding(dtype) or (e := encoding(dtype)).group is None:
        return tiles
    if e.kind == "progressive":
        return replace(tiles, tall=min(tiles.tall, PROGRESSIVE_ROWS))
    tall, passes = GROUP_ROWS, FP4_PASSES if e.kind == "microscaled" else GROUP_PASSES
    if not tiles.has_byte_dot and (e.bits == 8 or e.kind == "nested table"):
        tall, passes = DEAR_GROUP_ROWS, 1
    return replace(
        tiles,
        tall=min(tiles.tall, tall),
        passes=passes,
        vectors=min(tiles.vectors, GROUP_VECTORS),
        tall_first=e.bits < 8 and e.group <= SMALL_GROUP,
    )


def regimes_of(family: str, tiles: Tiles, rows: int, tuning: tuple[Tuning, ...] = ()) -> Iterator[str]:
    """Names of what a call on so many rows does: chunk after chunk of its rows.

    Args: tuning: of the call.
    """
    tall = min(tiles.tall * tiles.passes, (tuning[bucket_of(rows)] if tuning else Tuning()).tall_rows)
    if family == "attention":
        yield "scores"
    elif family not in _GEMM:
        yield "rows"
    else:
        for count in dict.fromkeys(row_chunks(rows)):
            yield _gemm_regime(tiles, count, tall)


def _gemm_regime(tiles: Tiles, rows: int, tall: int) -> str:
    """What panel_product of gemm.inl does with a chunk."""
    if tiles.matrix and rows >= tiles.matrix_least and not (tiles.tall_first and rows <= tall):
        return "matrix"
    if rows <= tall:
        return "tall"
    return "wide" if rows <= tiles.rows else "blocks"


def regime_text(regime: str, tiles: Tiles) -> str:
    """One of regimes_of() in words."""
    wide = f"{tiles.rows} rows x {16 * tiles.vectors} columns"
    return {
        "matrix": f"tile registers of {tiles.matrix} rows x 16 columns, two by two: the weights pass once for each "
        f"{2 * tiles.matrix} rows",
        "tall": f"up to {tiles.tall} rows x 16 columns in registers: a weight is used for each of them as it passes"
        + (f", at most {tiles.passes} times" if tiles.passes > 1 else ""),
        "wide": f"up to {wide} in registers: the weights pass once",
        "blocks": f"{STEPS_PER_BLOCK} steps of K of a panel stay in the second-level cache, tiles of up to {wide} go "
        f"over them, about {ROW_CHUNK} rows at a time",
        "scores": f"items of up to {ATTENTION_ROWS} rows (token, query head) of one KV head, of long prompts "
        f"{MANY_ROWS}, tiles of up to {tiles.matrix or tiles.rows} rows, {ATTENTION_TILE} positions at a time",
        "rows": "row after row",
    }[regime]
