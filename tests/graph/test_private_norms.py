"""Barriers that are left out behind private norms: whatever else counted on them keeps its order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph, optional_passes, passes_without
from albireo.graph.private_norms import private_norms
from albireo.graph.program import Program
from albireo.graph.program_spec import accesses, conflict
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog
from compiler.ranks import wide_config, wide_graph


def program(
    encoding: str | None, v_encoding: str | None = None, part: Part | None = None, without: Sequence[str] = ()
) -> Program:
    graph = wide_graph(wide_config("qwen3"), "bfloat16")
    choose_precision.run(graph, lambda name, role: v_encoding if v_encoding and "v_proj" in name else encoding)
    sizes = {"maxima": MAXIMA, "block_size": BLOCK_SIZE, "max_positions": MAX_POSITIONS}
    return compile_graph(graph, FakeCatalog(), part=part, passes=passes_without(without), **sizes)


PROGRAMS = {
    "numbers": program(None),
    "int8": program("int8"),
    "v apart": program("int8", "int8.g16"),
    "v in numbers": program("int8", "fp8"),
    "leaves": program("int8", part=Part(1, 0)),
    "leaves of a rank": program("int8", part=Part(2, 1)),
    "codes apart": program("int8", without=("fuse_norm",)),
    "op by op": program("int8", without=optional_passes()),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_read_or_overwritten_lies_behind_a_barrier(name: str) -> None:
    """Held pair by pair: of two calls that touch the same memory, one barrier between them is met in any case."""
    p = PROGRAMS[name]
    private = private_norms(p.calls, p.buffers, p.maxima)
    touched = [accesses(call, p.buffers, p.maxima) for call in p.calls]
    for first in set(range(len(p.calls))) - private:
        for second in range(first + 1, len(p.calls)):
            if conflict(touched[first], touched[second]):
                between = [p.calls[i] for i in range(first, second) if i not in private]
                rows = ("T", p.calls[first].rows)
                assert any(call.barrier and call.rows in rows for call in between), (p.calls[first], p.calls[second])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_late_thread_finds_what_it_reads_until_the_next_calls_work_is_taken(name: str) -> None:
    p = PROGRAMS[name]
    private = private_norms(p.calls, p.buffers, p.maxima)
    for i in private:
        reads = [each for each in accesses(p.calls[i], p.buffers, p.maxima) if not each[2]]
        for behind, call in enumerate(p.calls[i + 1 :], i + 1):
            assert not conflict(reads, accesses(call, p.buffers, p.maxima)), (p.calls[i], call)
            if call.barrier and behind not in private and call.rows in ("T", p.calls[i].rows):
                break


def test_norms_are_private_where_nothing_counts_on_them() -> None:
    layers = PROGRAMS["int8"].kv.num_layers
    counts = {name: len(private_norms(p.calls, p.buffers, p.maxima)) for name, p in PROGRAMS.items()}
    # before q/k/v and gate/up
    assert counts["numbers"] == 2 * layers
    # and the rounding before o and down; in the last layer rows are gathered before, and o needs all of them
    assert counts["int8"] == 4 * layers - 1
