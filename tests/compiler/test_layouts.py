"""Layouts: row orders, sizes, and that nothing is kept twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.compiler.layouts import Layouts, interleave, packed_bytes, plan_layouts
from albireo.compiler.pipeline import run_passes
from albireo.compiler.select import select_kernels
from albireo.errors import UnsupportedModel
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.ops import RopeSpec
from albireo.graph.program import PANEL
from compiler.examples import MAX_POSITIONS, ROPE, D, Decoder, E, F, FakeCatalog, V


def layouts(decoder: Decoder) -> Layouts:
    graph, _ = run_passes(decoder.graph())
    kernels, _ = select_kernels(graph, FakeCatalog())
    return plan_layouts(graph, kernels, MAX_POSITIONS)[0]


def rows_of(definition: ConstantDef) -> list[tuple[str, int] | None]:
    """Where each row comes from; None: zeros."""
    return [
        None if s.source is None else (s.source, row) for s in definition.segments for row in range(s.start, s.stop)
    ]


@given(half=st.integers(1, 200), cut=st.integers(1, 200))
def test_interleave_puts_each_gate_row_half_a_panel_before_its_up_row(half: int, cut: int) -> None:
    cut = min(cut, half)
    gate = [RowSegment("g", 5, 5 + cut), RowSegment("g2", 0, half - cut)]
    segments = (*(s for s in gate if len(s)), RowSegment("u", 0, half))
    packed = rows_of(interleave(ConstantDef(segments)))
    plain = rows_of(ConstantDef(segments))
    assert len(packed) % PANEL == 0 and len(packed) - 2 * half < PANEL
    places = np.arange(half)
    places = places // 32 * PANEL + places % 32
    assert [packed[i] for i in places] == plain[:half]
    assert [packed[i + 32] for i in places] == plain[half:]
    assert packed.count(None) == len(packed) - 2 * half


@pytest.mark.parametrize(
    ("packing", "rows", "cols", "num_bytes"),
    [
        ("row.float32", 1, 10, 40),
        ("row.bfloat16", 7, 10, 140),
        ("p64.float32", 64, 10, 64 * 10 * 4),
        ("p64.float16", 65, 9, 128 * 9 * 2),
        ("p64.bfloat16", 65, 9, 128 * 10 * 2),
    ],
)
def test_packed_bytes(packing: str, rows: int, cols: int, num_bytes: int) -> None:
    assert packed_bytes(packing, rows, cols) == num_bytes


def test_unknown_packing() -> None:
    with pytest.raises(UnsupportedModel, match=r"w4\.g32"):
        packed_bytes("w4.g32", 1, 1)


def test_a_tied_table_is_kept_once() -> None:
    planned = layouts(Decoder())
    table = planned.constants["table"]
    assert table.packing == "p64.bfloat16" and (table.rows, table.cols) == (V, E)
    readers = [args for args in planned.args.values() if "table" in args.values()]
    assert len(readers) == 3 and not any(name.startswith("table@") for name in planned.constants)


def test_an_untied_table_is_plain_rows() -> None:
    planned = layouts(Decoder(tied=False))
    assert planned.constants["table"].packing == "row.bfloat16"
    assert planned.constants["table"].num_bytes == V * E * 2
    assert planned.constants["head"].packing == "p64.bfloat16"


def test_gate_and_up_are_interleaved_with_their_bias() -> None:
    planned = layouts(Decoder(bias="u"))
    weight, bias = planned.constants["layers.0.g+u.weight"], planned.constants["layers.0.g+u.bias"]
    assert weight.rows == 128 and weight.num_bytes == 128 * E * 2
    assert (bias.packing, bias.rows, bias.cols, bias.num_bytes) == ("row.float32", 1, 128, 512)
    sources = [row and row[0] for row in rows_of(bias.definition)]
    assert sources[32:64] == ["layers.0.u.bias"] * 32 and set(sources[:32]) == {None}
    assert rows_of(weight.definition)[64:72] == [("layers.0.g.weight", i) for i in range(32, F)]


def test_one_rope_table_for_each_rotation() -> None:
    class TwoRopes(Decoder):
        def rotate(self, q, k):
            self.count = getattr(self, "count", 0) + 1
            spec = ROPE if self.count != 2 else RopeSpec(tuple(f / 2 for f in ROPE.inv_freq))
            return self.b.rope(q, spec, 4, D), self.b.rope(k, spec, 2, D)

    planned = layouts(TwoRopes(layers=3))
    ropes = {name: c for name, c in planned.constants.items() if c.packing == "rope"}
    assert list(ropes) == ["rope.0", "rope.1"] and ropes["rope.0"].rope == ROPE
    assert ropes["rope.0"].rows == MAX_POSITIONS and ropes["rope.0"].num_bytes == MAX_POSITIONS * D * 4
    assert [args["rope"] for args in planned.args.values() if "rope" in args] == ["rope.0", "rope.1", "rope.0"]


def test_every_checkpoint_row_is_read_once() -> None:
    options = {"layers": 2, "bias": "qkvogud", "tied": False}
    graph = Decoder(**options).graph()
    wanted = {(name, row) for name, v in graph.constants.items() for row in range(v.type.dims[0])}
    definitions = [c.definition for c in layouts(Decoder(**options)).constants.values() if c.definition]
    rows = [row for definition in definitions for row in rows_of(definition) if row]
    assert len(rows) == len(set(rows)) and set(rows) == wanted
