"""The map of the arena: lives do not meet, and the bounds are the plan's."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from albireo.compiler.pipeline import compile_graph
from albireo.inspect.arena import arena_lines, arena_map
from albireo.inspect.arena_picture import arena_picture, life_rects
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, FakeCatalog, model_graph
from inspect_programs import compiled, overlapping, rects
from representatives import REPRESENTATIVES


@pytest.fixture(params=[*REPRESENTATIVES, "deep"])
def program(request):
    graph = Decoder(layers=40).graph() if request.param == "deep" else model_graph(request.param, "bfloat16")
    return compiled(graph).program


def no_lives_meet(program) -> None:
    lives = arena_map(program).lives
    for i, one in enumerate(lives):
        for other in lives[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert not (together and one.offset < other.stop and other.offset < one.stop), (one, other)


def test_lives_do_not_meet_in_bytes_and_time(program) -> None:
    no_lives_meet(program)
    lives = arena_map(program).lives
    assert {life.name for life in lives} == set(program.buffers)
    assert all(0 <= life.first <= life.last <= len(program.calls) for life in lives)


def test_the_bounds_are_those_of_the_plan(program) -> None:
    arena = arena_map(program)
    (record,) = [each for each in program.report if each.name == "plan_memory"]
    found = re.fullmatch(r"peak ([\d,]+) bytes, lower bound ([\d,]+), without sharing ([\d,]+)", record.notes[1])
    assert [int(text.replace(",", "")) for text in found.groups()] == [arena.peak, arena.lower_bound, arena.unshared]


def test_parts_of_the_same_rows_are_one_life() -> None:
    """Of a program for a GPU, whose linears have columns that are values where they lie."""

    class Able(FakeCatalog):
        abilities = frozenset({"columns in place"})

    program = compile_graph(
        model_graph("mamba2", "bfloat16"),
        Able(),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=MAX_POSITIONS,
    )
    assert any(buffer.within for buffer in program.buffers.values())
    test_the_bounds_are_those_of_the_plan(program)
    no_lives_meet(program)


def test_outputs_live_to_the_end_and_a_residual_goes_on_in_place() -> None:
    program = compiled(Decoder(layers=2).graph()).program
    lives = {life.name: life for life in arena_map(program).lives}
    for name in program.outputs.values():
        assert lives[name].last == len(program.calls)
    assert sum(life.name == "x" for life in arena_map(program).lives) == 1 and lives["x"].first == 0


def test_text() -> None:
    program = compiled(Decoder(layers=6).graph()).program
    lines = arena_lines(program)
    assert lines[0] == f"arena      {program.arena_bytes:,} B for 32 T, 5 R, 3 G, 8 S rows"
    assert "so no plan needs fewer" in lines[1]
    rows = lines[5:]
    assert [row.split()[0] for row in rows] == list(dict.fromkeys(life.name for life in arena_map(program).lives))
    assert re.search(r"^h +[\d,]+ +[\d,]+  norm +1-2, 8-9, 15-16 and 3 more, the last 36-37$", "\n".join(rows), re.M)


def test_picture(program) -> None:
    root = ElementTree.fromstring(arena_picture(program).encode())
    held = rects(root, "held")
    arena = arena_map(program)
    assert len(held) == len(arena.lives)
    assert all(r.right <= float(root.get("width")) and r.bottom <= float(root.get("height")) for r in held)
    exact = [place for _, place in life_rects(arena, 10.0)]
    assert not [pair for pair in overlapping(exact) if min(_overlap(*pair)) > 1e-6]


def _overlap(one, other) -> tuple[float, float]:
    return min(one.right, other.right) - max(one.x, other.x), min(one.bottom, other.bottom) - max(one.y, other.y)
