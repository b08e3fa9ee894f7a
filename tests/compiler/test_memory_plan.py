"""The arena: no two live activations share a byte, and it is not larger than it must be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from albireo.compiler.memory_plan import Lifetime, place, plan_memory
from albireo.compiler.pipeline import PASSES, passes_for, run_passes
from albireo.graph.program_spec import ALIGNMENT
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from compiler.examples import ALL_MAXIMA, Decoder, E, V

lifetimes = st.lists(
    st.builds(
        lambda size, first, span: Lifetime(size, first, first + span),
        st.one_of(st.integers(1, 5000), st.sampled_from([64, 128, 4096])),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=40,
)


@given(lifetimes)
def test_live_activations_do_not_overlap(group: list[Lifetime]) -> None:
    placement = place(group)
    ranges = [(o, o + v.num_bytes) for o, v in zip(placement.offsets, group, strict=True)]
    for (a, a_range), (b, b_range) in itertools.combinations(zip(group, ranges, strict=True), 2):
        if a.first <= b.last and b.first <= a.last:
            assert a_range[1] <= b_range[0] or b_range[1] <= a_range[0]
    assert all(offset % ALIGNMENT == 0 for offset in placement.offsets)


@given(lifetimes)
def test_peak_lies_between_its_bounds(group: list[Lifetime]) -> None:
    placement = place(group)
    at = [sum(v.aligned_bytes for v in group if v.first <= t <= v.last) for t in range(30)]
    assert placement.lower_bound == max(at)
    assert placement.lower_bound <= placement.peak <= sum(v.aligned_bytes for v in group)
    ends = [offset + v.aligned_bytes for offset, v in zip(placement.offsets, group, strict=True)]
    assert placement.peak == max(ends, default=0)


def test_the_smallest_gap_is_taken() -> None:
    """At time 5 there are holes of 6 and of 4 blocks; 3 blocks go to the second."""
    spans = ((8, (0, 9)), (6, (0, 1)), (5, (0, 9)), (4, (0, 1)), (4, (1, 9)))
    group = [Lifetime(blocks * ALIGNMENT, *span) for blocks, span in spans]
    placement = place([*group, Lifetime(3 * ALIGNMENT - 1, 5, 6)])
    assert [offset // ALIGNMENT for offset in placement.offsets] == [0, 8, 14, 19, 23, 19]


def test_a_decoder_reaches_the_lower_bound_and_does_not_grow_with_layers() -> None:
    sizes = set()
    for layers in (1, 2, 7):
        graph, _ = run_passes(Decoder(layers=layers).graph())
        plan, record = plan_memory(graph, ALL_MAXIMA)
        sizes.add(plan.arena_bytes)
        peak, lower = (record.notes[1].split()[i] for i in (1, 5))
        assert peak == lower.rstrip(",") == f"{plan.arena_bytes:,}"
    assert len(sizes) == 1


def test_the_residual_is_written_in_place() -> None:
    graph, _ = run_passes(Decoder(layers=3).graph())
    plan, _ = plan_memory(graph, ALL_MAXIMA)
    assert [plan.names[n.output] for n in graph.nodes if "residual" in n.inputs] == ["x"] * 4 + ["x_S"] * 2
    assert sorted(name for name in plan.buffers if name.startswith("x")) == ["x", "x_S"]
    assert plan.buffers["x"].cols == E and plan.buffers["logits"].cols == V
    assert (plan.buffers["logits"].rows, plan.buffers["top_ids"].rows, plan.buffers["top_ids"].cols) == ("R", "G", 65)


def test_a_residual_that_is_read_later_is_kept() -> None:
    class Skip(Decoder):
        """A second block reads the first block's input again."""

        def mlp(self, x, i):
            first = super().mlp(x, i)
            return self.b.add(x, self.linear(self.norm(first, "skip"), "skip.d", E))

    graph, _ = run_passes(Skip().graph())
    plan, _ = plan_memory(graph, ALL_MAXIMA)
    down, skip = [n for n in graph.nodes if "residual" in n.inputs][1:]
    assert down.inputs["residual"] is skip.inputs["residual"]
    assert plan.names[down.output] != plan.names[down.inputs["residual"]]
    assert plan.names[skip.output] == plan.names[skip.inputs["residual"]]


def test_a_residual_that_the_linear_reads_across_rows_is_kept() -> None:
    class Same(Decoder):
        def mlp(self, x, i):
            return self.b.add(x, self.linear(x, "same", E))

    graph, _ = run_passes(Same("float32").graph())
    plan, _ = plan_memory(graph, ALL_MAXIMA)
    same = [n for n in graph.nodes if "residual" in n.inputs][1]
    assert same.inputs["x"] is same.inputs["residual"] and plan.names[same.output] != plan.names[same.inputs["x"]]


def test_an_output_lives_to_the_end() -> None:
    class Hidden(Decoder):
        def attention(self, x, i):
            self.first = x
            return super().attention(x, i)

        def head(self, y):
            return super().head(y) | {"hidden": self.first}

    graph, _ = run_passes(Hidden().graph())
    plan, _ = plan_memory(graph, ALL_MAXIMA)
    hidden = plan.buffers["hidden"]
    size = ALL_MAXIMA["T"] * E * 4
    for buffer in plan.buffers.values():
        if buffer is not hidden:
            assert buffer.offset >= hidden.offset + size or buffer.offset < hidden.offset


def test_parts_of_rows_have_the_buffers_of_the_layer_before() -> None:
    """Layers that are alike have calls that are alike, which are shown once; and no part is written in place."""
    counts = set()
    for layers in (3, 7):
        architecture = load_architecture("mamba2")
        keys = architecture.tiny | {"num_hidden_layers": layers}
        graph = build_graph(parse_config(keys, architecture.rules), 64)
        graph, _ = run_passes(graph, passes_for(["columns in place"], PASSES))
        plan, record = plan_memory(graph, ALL_MAXIMA)
        counts.add(len(plan.buffers))
        split = [[plan.buffers[plan.names[v]] for v in n.outputs] for n in graph.nodes if n.family == "linear_parts"]
        assert len(split) == layers and all(
            part.within == sum(p.cols for p in parts) for parts in split for part in parts
        )
        assert record.notes[0].endswith(f", {sum('residual' in n.inputs for n in graph.nodes)} written in place")
    assert len(counts) == 1
