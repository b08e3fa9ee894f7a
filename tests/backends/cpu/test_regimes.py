"""What reports say of the kernels is what the C++ headers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.regimes import (
    ATTENTION_ROWS,
    ATTENTION_TILE,
    DEAR_GROUP_ROWS,
    FP4_PASSES,
    GROUP_PASSES,
    GROUP_ROWS,
    GROUP_VECTORS,
    MANY_ROWS,
    PROGRESSIVE_ROWS,
    SMALL_GROUP,
    TILES,
)
from albireo.graph.tuning import ALLOWED, MOST_CHUNK, ROW_CHUNK, row_chunks

CSRC = Path(__file__).resolve().parents[3] / "csrc"
HEADERS = {level: re.split("vnni|bf16|dot|mm", level)[0] for level in TILES} | {"amx": "avx512", "avxvnni": "avx2"}
CATALOG = CpuCatalog(tuple(TILES))
#: Where registers hold four numbers.
SHARED = "simd/quads.h"


def constant(file: str, name: str) -> int:
    found = re.search(rf"constexpr \w+ {name} = (\d+)", (CSRC / file).read_text())
    assert found, f"{file} has no {name}"
    return int(found[1])


@pytest.mark.parametrize("level", TILES)
def test_tiles_are_those_of_the_headers(level: str) -> None:
    header = f"simd/vec_{HEADERS[level]}.h"
    tiles = TILES[level]
    has_quads = SHARED in (CSRC / header).read_text()
    rows = re.findall(r"kTileRows = (\d+)", (CSRC / header).read_text())  # of avx2's, first where bytes have dots
    assert tiles.rows == int(rows[0 if level == "avxvnni" else -1])
    assert tiles.vectors == constant(SHARED if has_quads else header, "kTileVectors")
    has_tall = "#define ALBIREO_TALL_ROWS" in (CSRC / header).read_text()
    assert tiles.matrix == (constant("kernels/gemm/tiles.inl", "kTileSide") if level == "amx" else 0)
    assert tiles.tall == (constant("include/albireo/tuning.h", "kTallRows") if has_tall else 0)


def test_tiles_of_few_bits_are_those_of_the_kernel() -> None:
    kernel = (CSRC / "kernels/gemm/integers.inl").read_text()
    few = re.search(r"kFew = !kIsGroup \? (\d+) : kIsDear \? (\d+) : (\d+);", kernel)
    passes = re.search(r"kFewPasses = !kIsGroup \|\| kIsDear \? 1 : kType == DType::kFp4 \? (\d+) : (\d+);", kernel)
    vectors = re.search(r"kGroupVectors = kTileVectors == 4 \? (\d+)", kernel)
    assert few and [int(each) for each in few.groups()] == [PROGRESSIVE_ROWS, DEAR_GROUP_ROWS, GROUP_ROWS]
    assert passes and [int(each) for each in passes.groups()] == [FP4_PASSES, GROUP_PASSES]
    assert vectors and int(vectors[1]) == GROUP_VECTORS
    small = re.search(r"lies = kIsGroup && is_packed\(kType\) && e.group <= (\d+);", kernel)
    assert small and int(small[1]) == SMALL_GROUP


def test_chunks_are_those_of_the_headers() -> None:
    assert constant("include/albireo/types.h", "kRowChunk") == ROW_CHUNK
    assert constant("include/albireo/types.h", "kMostChunk") == MOST_CHUNK
    assert constant("include/albireo/types.h", "kAttentionTile") == ATTENTION_TILE
    assert constant("kernels/attention/attention.h", "kAttentionRows") == ATTENTION_ROWS
    assert constant("kernels/attention/attention.h", "kManyRows") == MANY_ROWS
    # slabs are whole chunks, so the rows of a call are chunks and one rest
    assert all(rows % ROW_CHUNK == 0 for rows in ALLOWED["slab_rows"])


@pytest.mark.parametrize(
    ("kernel", "rows", "expected"),
    [
        ("linear.bfloat16.avx512bf16", 1, ("tall",)),
        ("linear.bfloat16.avx512bf16", 28, ("tall",)),
        ("linear.bfloat16.avx512bf16", 29, ("blocks",)),
        ("linear.bfloat16.avx512bf16", 48, ("blocks",)),
        ("linear.bfloat16.avx512bf16", 56, ("blocks",)),
        ("linear.bfloat16.avx512bf16", 64, ("blocks",)),
        ("linear.bfloat16.avx512bf16", 2048, ("blocks",)),
        ("qkv_rope_kv.float32.avx512", 7, ("tall",)),
        ("linear.q4_k.avx512vnni", 28, ("tall",)),
        ("linear.q4_k.avx512vnni", 29, ("blocks",)),
        ("linear.fp4.g32.avx512vnni", 24, ("tall",)),
        ("linear.fp4.g32.avx512vnni", 25, ("blocks",)),
        ("linear.int4.g32.affine.avx512", 6, ("tall",)),
        ("linear.int4.g32.affine.avx512", 28, ("tall",)),
        ("linear.int8.g32.affine.avx512", 7, ("blocks",)),
        ("linear.iq4_xs.avx512", 7, ("blocks",)),
        ("linear.int4.g32.affine.avx2", 12, ("blocks",)),
        ("linear.int4p.g64.avx512vnni", 24, ("tall",)),
        ("linear.int8.avx512vnni", 28, ("tall",)),
        ("linear.int8.amx", 15, ("tall",)),
        ("linear.bfloat16.amx", 1, ("matrix",)),
        ("linear.fp8.amx", 1, ("matrix",)),
        ("linear.fp8.g128.amx", 3, ("matrix",)),
        ("linear.int8.amx", 16, ("matrix",)),
        ("linear.int8.amx", 50, ("matrix",)),
        ("head_top.float16.avx2", 5, ("wide",)),
        ("head_top.float16.avx2", 6, ("blocks",)),
        ("linear.float32.scalar", 50, ("blocks",)),
        ("attention.bfloat16.avx512bf16", 1, ("scores",)),
        ("norm.bfloat16.avx512", 300, ("rows",)),
    ],
)
def test_regimes(kernel: str, rows: int, expected: tuple[str, ...]) -> None:
    assert CATALOG.regimes(kernel, [rows]) == expected
    assert all(len(CATALOG.regime_text(kernel, name)) > 10 for name in expected)


def test_regimes_of_several_numbers_of_rows_are_in_order_of_first_use() -> None:
    assert CATALOG.regimes("linear.bfloat16.avx512", range(16, 65)) == ("tall", "blocks")
    assert CATALOG.regimes("linear.bfloat16.avx512", []) == ()


def test_chunks_are_nearly_equal() -> None:
    assert row_chunks(112) == (112,)
    assert row_chunks(113) == (57, 56)
    assert row_chunks(1024) == (94,) * 10 + (84,)
    for rows in range(1, 700):
        chunks = row_chunks(rows)
        assert sum(chunks) == rows
        assert max(chunks) <= MOST_CHUNK
        assert len(chunks) == 1 or min(chunks[:-1]) > TILES["avx512"].tall
