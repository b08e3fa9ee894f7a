"""The levels for Arm, on any machine that has a compiler for it: what it made of the register tiles, and that levels
that differ in how they multiply weights in few bits have the same bits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from albireo import _native
from albireo.backends.cpu.machine import isa_levels
from backends.cpu.arm_objects import IS_ARM, disassembled, run_for_arm

#: Rows of a wide tile, and quarters of its vector of 16 columns.
ROWS, QUARTERS = 6, 4
PANELS = (
    "kernels/gemm/panels_neon.cc",
    "kernels/gemm/panels_neondot.cc",
    "kernels/gemm/panels_neonmm.cc",
    "kernels/gemm/panels_integers_neonmm.cc",
)
_JUMP = re.compile(r"(?:b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\w+,)\s+([0-9a-f]+) @(\d+)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arm")


@pytest.fixture(scope="module")
def inner_loops(folder: Path) -> list[list[str]]:
    """Bodies of loops without another jump, as test_hot_loops.py has them."""
    code = disassembled(PANELS, folder)
    index, found = {address: i for i, (address, _) in enumerate(code)}, []
    for i, (_, text) in enumerate(code):
        if (jump := _JUMP.match(text)) is None:
            continue
        start = index.get(f"{jump[2]}.{jump[1]}", i)
        body = [text for _, text in code[start : i + 1]]
        if 0 < i - start < 200 and not any(re.match(r"b\b|b\.|cb|tb|ret", text) for text in body[:-1]):
            found.append(body)
    return found


def count(body: list[str], name: str) -> int:
    return sum(text.startswith(name) for text in body)


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("fmla", {QUARTERS * rows for rows in range(1, ROWS + 1)}),
        ("sdot", {QUARTERS * rows for rows in range(1, ROWS + 1)}),
        ("bfdot", {QUARTERS}),
        ("usdot", {QUARTERS, 2 * QUARTERS}),
        # two rows at a time, over two steps: as many as dots of one row over one step
        ("bfmmla", {2 * QUARTERS * pairs for pairs in (1, 2, 3)}),
        ("usmmla", {2 * QUARTERS * pairs for pairs in (1, 2, 3)}),
    ],
)
def test_tiles_are_loops_of_products_with_nothing_on_the_stack(
    inner_loops: list[list[str]], name: str, products: set[int]
) -> None:
    loops = [body for body in inner_loops if count(body, name) and not count(body, "scvtf")]  # that end a group
    assert products <= {count(body, name) for body in loops}
    for body in loops:
        if count(body, name) <= QUARTERS * ROWS:
            assert not any("[sp" in text for text in body), "\n".join(body)


@pytest.mark.parametrize("name", ["bfmmla", "usmmla"])
def test_two_rows_by_two_columns_take_one_word_each_put_side_by_side(inner_loops: list[list[str]], name: str) -> None:
    """Of the eight words of two steps each is zipped once, whatever the number of rows, and no sum is copied."""
    full = [body for body in inner_loops if count(body, name) == QUARTERS * ROWS]
    assert full
    for body in full:
        assert count(body, "zip1") == count(body, "zip2") == QUARTERS
        assert count(body, "mov\tv") == 0 and len(body) <= QUARTERS * ROWS + 34, "\n".join(body)


def test_levels_multiply_weights_in_few_bits_alike(folder: Path) -> None:
    if IS_ARM:
        assert not any(_native.first_difference(level, "neon") for level in isa_levels() if level.startswith("neon"))
        return
    units = (
        *PANELS,
        "core/self_test.cc",
        "core/memory.cc",
        "core/cpu_info.cc",
        "core/amx.cc",
        "core/linux/memory.cc",
        "core/linux/processors.cc",
        "kernels/gemm/panels.cc",
        "kernels/gemm/panels_scalar.cc",
        "kernels/gemm/panels_model_scalar.cc",
        "kernels/linear/linear.cc",
        "kernels/linear/linear_scalar.cc",
        "kernels/linear/linear_neon.cc",
        "kernels/linear/linear_neonmm.cc",
        "kernels/pack/pack.cc",
        "kernels/pack/pack_encoded.cc",
    )
    said = run_for_arm(Path(__file__).with_name("arm_levels.cc"), units, folder).splitlines()
    assert said == ["levels neonmm neondot neon scalar", "neondot: the same", "neonmm: the same"]
