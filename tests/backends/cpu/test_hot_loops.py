"""What the compiler made of the register tiles: a loop of dots and nothing on the stack.

A compiler that copies accumulators or spills them halves the speed and changes no result: no other test would see it.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from albireo import _native

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86; of Arm: test_arm.py")
TILE_ROWS, TILE_VECTORS, TALL_ROWS = 6, 4, 28
AVX2_ROWS, AVXVNNI_ROWS = 5, 6


@pytest.fixture(scope="module")
def code() -> list[tuple[str, str]]:
    """(address, instruction) of the whole native module, in order. Two million: no Python for each of them."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    command = ["objdump", "-d", "--no-show-raw-insn", _native.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^ *([0-9a-f]+):[ \t]+(.+)", text, re.MULTILINE)


@pytest.fixture(scope="module")
def all_inner_loops(code: list[tuple[str, str]]) -> list[list[str]]:
    """Bodies of loops without another jump: from the target of a backward jump to the jump."""
    index, longest, found = {address: i for i, (address, _) in enumerate(code)}, 160, []
    for i, (_, text) in enumerate(code):
        if text[0] != "j" or (jump := re.match(r"j\w+\s+([0-9a-f]+)", text)) is None:
            continue
        start = index.get(jump[1], -1)
        body = [text for _, text in code[start : i + 1]] if start >= 0 and 0 < i - start < longest else []
        if body and not any(text.startswith("j") for text in body[:-1]):
            found.append(body)
    return found


def is_tiled_attention(body: list[str]) -> bool:
    """Columns come first there, then rows (csrc/kernels/attention/tiled.inl); of weights rows do."""
    return any(re.match(r"tdpbf16ps\s+%tmm[2-5],%tmm[67],%tmm[01]$", text) for text in body)


@pytest.fixture(scope="module")
def inner_loops(all_inner_loops: list[list[str]]) -> list[list[str]]:
    """But those of attention in tile registers, which are of another kind."""
    return [body for body in all_inner_loops if not is_tiled_attention(body)]


def dots(body: list[str], name: str) -> int:
    return sum(text.startswith(name) for text in body)


def stack_stores(body: list[str]) -> list[str]:
    return [text for text in body if re.match(r"vmov\S+\s+%[yz]mm\d+,.*\(%r[sb]p", text)]


def ends_a_group(body: list[str]) -> bool:
    return dots(body, "vcvtdq2ps") > 0


def test_bf16_tiles_are_loops_of_dots(inner_loops: list[list[str]]) -> None:
    sizes = {dots(body, "vdpbf16ps") for body in inner_loops}
    assert {rows * TILE_VECTORS for rows in range(1, TILE_ROWS + 1)} | set(range(2, TALL_ROWS + 1)) <= sizes


def test_whole_tiles_are_loops_of_dots(inner_loops: list[list[str]]) -> None:
    """An int8 cache: 4 loads that widen, a broadcast a row, and dots."""
    loops = [body for body in inner_loops if dots(body, "vpdpwssd") > 0]
    assert {rows * TILE_VECTORS for rows in (1, 2, 3)} <= {dots(body, "vpdpwssd") for body in loops}
    for body in loops:
        assert dots(body, "vpmovsxbw") == TILE_VECTORS
        assert not stack_stores(body), "\n".join(body)


def test_a_tall_tile_has_no_address_arithmetic(inner_loops: list[list[str]]) -> None:
    """A broadcast inside each dot, at fixed distances from one pointer: 28 addresses would not fit in registers."""
    loops = [b for b in inner_loops if not any(t.startswith("vpunpck") for t in b)]  # those of float8 look up
    tall = [b for b in loops if dots(b, "vdpbf16ps") == TALL_ROWS and any("{1to16}" in t for t in b)]
    assert tall
    for body in tall:
        assert len(body) <= TALL_ROWS + 12, "\n".join(body)


def test_no_tile_keeps_an_accumulator_on_the_stack(inner_loops: list[list[str]]) -> None:
    names = ("vdpbf16ps", "vpdpbusd")
    tiles = [b for b in inner_loops if any(dots(b, n) for n in names) or dots(b, "vfmadd") >= 8]
    assert len(tiles) > 100
    for body in tiles:
        assert not stack_stores(body), "\n".join(body)


def test_a_full_tile_broadcasts_once_a_row(inner_loops: list[list[str]]) -> None:
    """6 broadcasts and 4 loads for 24 dots: with a broadcast in each dot, loads would be the limit."""
    full = [b for b in inner_loops if dots(b, "vdpbf16ps") == TILE_ROWS * TILE_VECTORS]
    wide = [body for body in full if dots(body, "vbroadcastss") == TILE_ROWS]
    assert wide
    for body in wide:
        assert not any("{1to16}" in text for text in body)
        assert len(body) <= 50


def test_integer_tiles_are_loops_of_dots(inner_loops: list[list[str]]) -> None:
    """Of bytes as of bf16; of nibbles two dots a row, for tiles of few rows."""
    loops = [body for body in inner_loops if dots(body, "vpdpbusd") > 0 and not ends_a_group(body)]
    sizes = {dots(body, "vpdpbusd") for body in loops}
    assert {rows * TILE_VECTORS for rows in range(1, TILE_ROWS + 1)} | set(range(2, TALL_ROWS + 1)) <= sizes
    nibbles = [body for body in loops if any(text.startswith("vpsrlw") for text in body)]
    assert {2 * rows for rows in range(2, 25)} <= {dots(body, "vpdpbusd") for body in nibbles}
    for body in loops:
        assert len(body) <= dots(body, "vpdpbusd") + 24, "\n".join(body)


def test_integer_tiles_of_avx2_keep_their_sums_in_registers(inner_loops: list[list[str]]) -> None:
    """Two dots of 8 columns a row, of nibbles four; of small codes their pairs are added without being widened."""
    loops = [b for b in inner_loops if any(re.match(r"vpmaddubsw .*%ymm", t) for t in b) and not ends_a_group(b)]
    narrow = [body for body in loops if dots(body, "vpmaddwd") == 0]
    assert {2 * rows for rows in range(1, AVX2_ROWS + 1)} <= {dots(body, "vpmaddubsw") for body in narrow}
    wide = [body for body in loops if dots(body, "vpmaddwd") > 0]
    assert {2 * rows for rows in range(1, AVX2_ROWS + 1)} <= {dots(body, "vpmaddwd") for body in wide}
    for body in loops:
        assert not any(re.search(r"\(%r[sb]p", text) for text in body), "\n".join(body)


def test_integer_tiles_of_avxvnni_are_loops_of_dots(inner_loops: list[list[str]]) -> None:
    """Two dots of 8 columns a row behind one broadcast, of nibbles twice as many; all sums in registers."""
    name = "{vex} vpdpbusd"
    probe, *loops = sorted(
        (body for body in inner_loops if dots(body, name) > 0 and not ends_a_group(body)),
        key=lambda b: dots(b, "vpbroadcastd"),
    )
    assert dots(probe, "vpbroadcastd") == 0 and dots(probe, name) == 12
    nibbles = [body for body in loops if any(text.startswith("vpsrlw") for text in body)]
    assert {2 * rows for rows in range(1, AVXVNNI_ROWS + 1)} <= {dots(body, name) for body in loops}
    assert {4 * rows for rows in range(1, AVXVNNI_ROWS + 1)} <= {dots(body, name) for body in nibbles}
    for body in loops:
        assert dots(body, "vpbroadcastd") == dots(body, name) / 2, "\n".join(body)
        assert not stack_stores(body), "\n".join(body)


@pytest.mark.parametrize("name", ["vpdpbusd", "{vex} vpdpbusd", "vpmaddubsw"])
def test_groups_of_nests_are_loops_whose_sums_stay_in_registers(inner_loops: list[list[str]], name: str) -> None:
    """All dots of a group, then its end. What rows have so far may lie in memory at 256 bits; sums of dots may not."""
    loops = [b for b in inner_loops if any(re.match(rf"{re.escape(name)} .*%[yz]mm", t) for t in b) and ends_a_group(b)]
    assert len(loops) >= 3
    for body in loops:
        sums = dots(body, "vcvtdq2ps")
        assert len(stack_stores(body)) <= (0 if name == "vpdpbusd" else sums), "\n".join(body)
        # where pairs are added in 16 bits each number has two sums
        copies = sums if name == "vpmaddubsw" else dots(body, name) // 8
        assert dots(body, "vmovdqa") + dots(body, "vmovaps") <= sums + copies, "\n".join(body)


@pytest.mark.parametrize("name", ["tdpbsud", "tdpbf16ps"])
def test_matrix_tiles_are_loops_of_four_dots(inner_loops: list[list[str]], name: str) -> None:
    """Two tiles of rows by two of columns from four loads, one by two from three, one by four from five; sums stay in
    tile registers."""
    probes, loops = [], []
    for body in inner_loops:
        if dots(body, name) > 0:
            (loops if dots(body, "tileload") > 0 else probes).append(body)
    assert [dots(body, name) for body in probes] == [4], "what measures the peak loads nothing"
    of_codes = {(1, 2)} if name == "tdpbf16ps" else set()  # of fp8, made to bf16 beside the dot before
    assert {(dots(body, name), dots(body, "tileload")) for body in loops} == {(4, 4), (2, 3), (4, 5)} | of_codes
    found = [re.search(r"%tmm([67]),%tmm([45]),%tmm([0-3])$", t) for body in loops for t in body if t.startswith(name)]
    assert all(found), "columns, which are unsigned, then rows, then sums"
    assert {match[3] for match in found if match} == set("0123")
    for body in loops:
        assert not any(re.search(r"\(%r[sb]p", text) for text in body), "\n".join(body)
        assert not any(text.startswith(("tilestore", "tilezero")) for text in body)


def test_attention_keeps_columns_in_tile_registers(all_inner_loops: list[list[str]]) -> None:
    """Tiles of rows pass up to four steps of columns: a load a dot, and sums are stored once."""
    loops = [body for body in all_inner_loops if is_tiled_attention(body)]
    assert {dots(body, "tdpbf16ps") for body in loops} == {1, 2, 3, 4}
    for body in loops:
        assert dots(body, "tileload") == dots(body, "tdpbf16ps") and dots(body, "tilestore") == 1, "\n".join(body)
        assert not stack_stores(body), "\n".join(body)


def test_groups_in_matrix_tiles_keep_totals_in_registers(code: list[tuple[str, str]]) -> None:
    """Behind a dot a group of 16 rows ends: an addition and one or two multiply-adds a row, none on the stack."""
    ends = []
    for i, (_, text) in enumerate(code):
        if text.startswith(("tdpbssd", "tdpbsud")):
            behind = [text for _, text in code[i + 1 : i + 60]]
            if dots(behind, "vfmadd") >= 12 and dots(behind, "vaddps") >= 12:
                ends.append(behind)
    assert len(ends) >= 12
    for behind in ends:
        assert not stack_stores(behind), "\n".join(behind)
        assert dots(behind, "vcvtdq2ps") <= 1, "of a head with zeros"
