"""Which layers take blocks of their own: what is gained, what is lost, and when it is not worth it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.compiler.block_groups import MOST_GROUPS, group_blocks, with_groups
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph, Node
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config


def layout(num_layers: int, shapes: tuple[tuple[int, int], ...] = (), dtype: str = "bfloat16") -> KVLayout:
    heads, dim = shapes[0] if shapes else (8, 128)
    return KVLayout(num_layers, heads, dim, dtype, 16, shapes=shapes)


def every(period: int, num_layers: int, window: int = 1024) -> list[int | None]:
    """Every period-th layer sees all positions."""
    return [None if i % period == period - 1 else window for i in range(num_layers)]


@pytest.mark.parametrize(
    ("name", "given", "windows", "num_groups", "share"),
    [
        # Gemma 3 1B, 4B, 12B and 27B, gpt-oss 20B: of the bytes of one group, what a token takes far behind all windows
        ("gemma3 1b", layout(26), every(6, 26), 7, 4 / 26),
        ("gemma3 4b", layout(34), every(6, 34), 7, 5 / 34),
        ("gemma3 12b", layout(48), every(6, 48), 6, 8 / 48),
        ("gemma3 27b", layout(62), every(6, 62), 7, 10 / 62),
        ("gpt-oss 20b", layout(24), every(2, 24, 128), 2, 12 / 24),
        # Gemma 4 31B: five layers of 16 heads of 256 for each of 4 heads of 512
        ("gemma4 31b", layout(60, ((16, 256),) * 5 * 10 + ((4, 512),) * 10), [1024] * 50 + [None] * 10, 11, 1 / 11),
        # E2B: layers that see all are twice as large
        ("gemma4 e2b", layout(15, ((1, 256),) * 12 + ((1, 512),) * 3), [512] * 12 + [None] * 3, 3, 1 / 3),
    ],
)
def test_real_models(name: str, given: KVLayout, windows: list[int | None], num_groups: int, share: float) -> None:
    made, note = with_groups(given, windows)
    assert made.num_groups == num_groups, note
    assert made.windows == (None, *[next(w for w in windows if w)] * (num_groups - 1))
    assert made.block_bytes == pytest.approx(share * given.block_bytes)
    for group, window in zip(made.groups, made.windows, strict=True):
        assert {windows[layer] for layer in group} == {window}
    # what is lost of short sequences: a seventh at most
    assert num_groups * made.block_bytes <= given.block_bytes * 8 / 7
    made.check()


def test_layers_lie_side_by_side_in_units_of_their_own() -> None:
    given = layout(60, ((16, 256),) * 5 * 10 + ((4, 512),) * 10)
    made, _ = with_groups(given, [1024] * 50 + [None] * 10)
    assert made.units == (10, *[5] * 10)
    assert (made.place(50), made.place(59), made.place(0), made.place(7)) == ((0, 0), (0, 9), (1, 0), (2, 2))
    sizes = [layer.block_bytes for layer in made.layers]
    ends = [(made.place(layer)[1] + 1) * sizes[layer] for layer in range(60)]
    assert max(ends) == made.block_bytes


@pytest.mark.parametrize(
    ("given", "windows", "why"),
    [
        (layout(4), [None] * 4, "no layer has a window"),
        (layout(40), [*[None] * 36, *[512] * 4], "too few to gain by it"),
        (layout(26), [None, *range(1, 26)], "of too many kinds"),
        (layout(3, ((8, 128), (4, 128), (8, 128))), [None, 9, 9], "differ in shape"),
        (layout(4, ((8, 128), (4, 128), (4, 128), (4, 128)), "int8"), [None, 9, 9, 9], "blocks of codes"),
    ],
)
def test_one_group_where_others_are_of_no_use(given: KVLayout, windows: list[int | None], why: str) -> None:
    made, note = with_groups(given, windows)
    assert made == given and why in note


def test_layers_that_all_have_one_window_are_one_group_that_lets_go() -> None:
    made, note = with_groups(layout(32), [4096] * 32)
    assert made == replace(layout(32), windows=(4096,)) and "all layers see 4096 positions" in note


def test_layers_with_entries_of_several_positions_differ_in_the_first_group() -> None:
    """DeepSeek V4 Flash: 43 windows of 16 KB a block; of 21 layers 4 entries of 4 KB and 1 KB for what chooses; of 20
    layers one entry of 1 KB. 125 KB that stay are filled up to eight windows, of which there are six times as many."""
    others = [kind for layer in range(43) for kind in ([(512, 4), (128, 4)], [(512, 128)])[layer % 2] if layer > 1]
    shapes = tuple((1, dim) for dim in [512] * 43 + [dim for dim, _ in others])
    each = (1,) * 43 + tuple(every for _, every in others)
    given = KVLayout(len(shapes), 1, 512, "bfloat16", 16, False, shapes, every=each)
    made, note = with_groups(given, [128] * 43 + [None] * len(others))
    assert made.windows == (None, *[128] * 6) and made.groups[0] == tuple(range(43, len(shapes))), note
    assert made.block_bytes == 8 * 16384 and made.units == (1, *[8] * 6)
    assert [made.before(layer) for layer in (43, 44, 45, 46)] == [0, 4096, 5120, 6144]
    assert [made.before(layer) for layer in (0, 7, 8, 42)] == [0, 7 * 16384, 0, 2 * 16384]
    assert {made.stride(layer) for layer in made.groups[0]} == {made.block_bytes} and made.stride(0) == 0
    made.check()
    with pytest.raises(InvariantError, match="differ in shape"):
        replace(made, groups=(made.groups[1], made.groups[0], *made.groups[2:])).check()


def test_two_windows_and_nothing_that_sees_all() -> None:
    made, _ = with_groups(layout(12), [100, 4096, 100] * 4)
    assert made.windows == (4096, 100, 100) and made.groups == ((1, 4, 7, 10), (0, 2, 3, 5), (6, 8, 9, 11))


def test_never_more_tables_than_are_worth_it() -> None:
    made, _ = with_groups(layout(61), [None, *[512] * 60])
    assert 1 < made.num_groups <= MOST_GROUPS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ((0, 1), (2,))}, "not all of 4 layers"),
        ({"groups": ((0, 1), (2, 3, 3))}, "not all of 4 layers"),
        ({"groups": ((0, 1, 2, 3),)}, "1 groups of layers have 2 windows"),
        ({"groups": ()}, r"windows \(None, 9\) of one group"),
        ({"windows": (9, None)}, "only the first group"),
        ({"in_chunks": (1,)}, None),
        ({"in_chunks": (0,)}, r"groups \(0,\) see chunks; windows are \(None, 9\)"),
        ({"in_chunks": (2,)}, r"groups \(2,\) see chunks"),
        ({"groups": ((0, 1, 2), (3,)), "shapes": ((1, 64), (2, 64), (1, 64), (1, 64))}, "differ in shape"),
        ({"groups": ((0, 1), (2, 3)), "shapes": ((1, 64), (1, 64), (3, 64), (3, 64)), "num_kv_heads": 1}, None),
        ({"groups": ((0, 1, 2), (3,)), "shapes": ((1, 64), (1, 64), (1, 64), (2, 64))}, "is not filled by layers"),
    ],
)
def test_layouts_that_cannot_be(change: dict[str, object], message: str | None) -> None:
    good = replace(layout(4), groups=((0, 1), (2, 3)), windows=(None, 9))
    good.check()
    made = replace(good, **change)  # type: ignore[arg-type]
    if message is None:
        made.check()
        return
    with pytest.raises(InvariantError, match=message):
        made.check()


@pytest.mark.parametrize(("max_positions", "num_groups"), [(128, 3), (19, 1)])
def test_a_window_as_long_as_any_sequence_is_none(max_positions: int, num_groups: int) -> None:
    """The tiny Gemma 2 has windows of 19 positions in two of three layers."""
    architecture = load_architecture("gemma2")
    graph = build_graph(parse_config(architecture.tiny, architecture.rules), max_positions)
    program = compile_graph(
        graph,
        CpuCatalog(("scalar",)),
        maxima={"T": 8, "R": 2, "G": 2},
        block_size=8,
        max_positions=max_positions,
        has_block_groups=True,
    )
    assert program.kv.num_groups == num_groups
    assert [record.name for record in program.report][-2:] == ["block_groups", "emit"]


def read_by(*readers: tuple[int, int | None, dict[str, object]], chooses: int | None = None) -> KVLayout:
    """Args: readers: of attention, the layer whose cache it reads, its window, and what else is said of it; chooses: a
    layer of which positions are chosen from all."""
    nodes = [Node("fused", {}, {"layer": i, "window": w, **more}, family="attention") for i, w, more in readers]
    if chooses is not None:
        nodes.append(Node("fused", {}, {"layer": chooses}, family="choose_keys"))
    return group_blocks(Graph(nodes=nodes), layout(2), 64)[0]


def test_what_is_let_go_is_what_no_reader_sees() -> None:
    chunks = {"in_chunks": True}
    assert read_by((0, None, {}), (1, 20, {})).windows == (None, 20)
    assert read_by((1, 20, {}), (0, 0, {})).groups == ((0,), (1,)), "whoever is read first"
    assert read_by((0, 64, {}), (1, 63, {})).windows == (None, 63), "no sequence is longer than 64"
    assert read_by((0, 20, {"both_ways": True}), (1, 20, {})).windows == (None, 20), "in its step it sees all"
    assert read_by((0, None, {}), (1, 20, {}), (1, 30, {}), (1, 25, {})).windows == (None, 30)
    assert read_by((0, None, {}), (1, 20, {}), (1, None, {})).num_groups == 1
    assert read_by((0, None, {}), (1, 20, {}), chooses=1).num_groups == 1
    assert read_by((0, None, {}), (1, 20, chunks)).in_chunks == (1,)
    assert read_by((0, None, chunks), (1, 20, chunks)).in_chunks == (1,), "all is no chunk"
    assert read_by((0, None, {}), (1, 20, chunks), (1, 30, {})).in_chunks == (), "one sees a window"
