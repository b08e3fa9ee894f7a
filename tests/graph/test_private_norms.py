"""Norms that every thread computes for itself: which, and how many barriers that leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.compiler.pipeline import compile_graph
from albireo.graph.private_norms import few_barriers, private_norms
from albireo.graph.program import Program
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, FakeCatalog


def program(layers: int) -> Program:
    graph = Decoder(layers=layers).graph()
    return compile_graph(graph, FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS)


def found(p: Program) -> list[int]:
    return sorted(private_norms(p.calls, p.buffers, p.maxima))


def test_a_layer_has_five_barriers() -> None:
    """Behind q/k/v, attention, the output projection, gate/up and down; the norms need none."""
    assert few_barriers(program(4)) - few_barriers(program(3)) == 5
    assert sum(call.barrier for call in program(4).calls) - sum(call.barrier for call in program(3).calls) == 7


def test_every_norm_of_a_layer_is_private() -> None:
    p = program(3)
    norms = [i for i, call in enumerate(p.calls) if call.family == "norm" and call.origin.startswith("layers.")]
    assert len(norms) == 6 and set(norms) <= set(found(p))
    assert all(p.calls[i + 1].args["x"] == p.calls[i].args["out"] for i in found(p))


@pytest.mark.parametrize("role", ["residual", "x"])
def test_rows_that_others_read_are_not_private(role: str) -> None:
    """A later call reads them, or the next one in another role as well, or for other rows."""
    p = program(2)
    first = found(p)[0]
    out = p.calls[first].args["out"]
    at = first + (1 if role == "residual" else 2)
    calls = list(p.calls)
    calls[at] = replace(calls[at], args=calls[at].args | {role: out})
    assert first not in private_norms(calls, p.buffers, p.maxima)
    calls = list(p.calls)
    calls[first + 1] = replace(calls[first + 1], rows="S")
    assert first not in private_norms(calls, p.buffers, p.maxima)
