"""The picture is well-formed, complete, and nothing in it covers anything else."""

from __future__ import annotations

import itertools
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from albireo.graph.node import Graph
from albireo.inspect.layer_picture import layer_picture
from albireo.inspect.scene import place_story
from albireo.inspect.story import layer_story
from compiler.examples import Decoder, model_graph
from inspect_programs import EVIL, SVG, Hostile, compiled, contains, overlapping, rects
from representatives import ALL_REPRESENTATIVES


class Idle(Decoder):
    """An op that changes nothing, on the way into attention."""

    def attend(self, q, i, **attrs):
        return super().attend(self.b.scale(q, 1.0), i, **attrs)


GRAPHS: dict[str, Graph] = {
    **{
        f"{name}-{dtype}": model_graph(name, dtype)
        for name, dtype in zip(ALL_REPRESENTATIVES, itertools.cycle(("float32", "bfloat16")))
    },
    "biased": Decoder(layers=2, bias="qkvogud").graph(),
    "idle": Idle(layers=2).graph(),
    "hostile": Hostile(layers=2).graph(),
}
LAST = 1


@pytest.fixture(
    scope="module", params=[(name, layer) for name in GRAPHS for layer in (0, LAST)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def drawn(request):
    name, layer = request.param
    explained = compiled(GRAPHS[name])
    story = layer_story(explained, layer)
    return explained, story, ElementTree.fromstring(layer_picture(explained, story, name).encode())


def test_every_op_and_every_call_is_there_once(drawn) -> None:
    _, story, root = drawn
    ops = [" ".join(v.name for v in op.outputs) for group in story.groups for op in (*group.members, *group.dropped)]
    assert sorted(each.get("data-op") for each in root.iter() if each.get("data-op")) == sorted(ops)
    calls = [each.get("data-call") for each in root.iter() if each.get("data-call")]
    assert calls == [str(group.idx) for group in story.groups]


def test_no_box_covers_another(drawn) -> None:
    _, _, root = drawn
    width, height = (float(root.get(name)) for name in ("width", "height"))
    ops, calls, groups = rects(root, "op") + rects(root, "gone"), rects(root, "call"), rects(root, "group")
    assert len(groups) == len(calls)
    assert not list(overlapping([*ops, *calls])) and not list(overlapping([*groups, *calls]))
    for op in ops:
        assert sum(contains(group, op) for group in groups) == 1
    for each in [*rects(root, "box"), *groups, *rects(root, "chip"), *rects(root, "before"), *rects(root, "after")]:
        assert each.x >= 0 and each.y >= 0 and each.right <= width and each.bottom <= height
    assert width >= 1200


def test_no_line_of_text_leaves_its_box(drawn) -> None:
    _, _, root = drawn
    for group in root.iter(f"{SVG}g"):
        (box,) = [r for r in (*rects(group, "op"), *rects(group, "gone"), *rects(group, "call"))]
        for text in group.iter(f"{SVG}text"):
            if text.get("text-anchor") is None:
                size = re.search(r"font-size:([\d.]+)px", text.get("style", "")) or [0, "10.5"]
                length = len(text.text) * 0.602 * (12 if "bold" in text.get("class", "") else float(size[1]))
                assert float(text.get("x")) + length <= box.right, text.text
            assert box.y < float(text.get("y")) < box.bottom


def test_no_wire_runs_through_an_op(drawn) -> None:
    explained, story, _ = drawn
    scene = place_story(story, explained.base, top=0)
    for wire in scene.wires:
        for (x, y), (to_x, to_y) in list(pairwise(wire.points))[1::2]:
            assert x == to_x and y < to_y
            assert not any(op.x <= x <= op.right and op.y < to_y and y < op.bottom for op in scene.ops.values())
    lanes = sorted((wire.x, wire.start[1], max(y for _, y, _ in wire.targets)) for wire in scene.long_wires)
    for (x, _, stop), (next_x, start, _) in pairwise(lanes):
        assert next_x > x or start >= stop - 12
    assert all(0 < x < min(band.x for band in scene.bands) for x, _, _ in lanes)


def test_every_value_that_an_op_reads_has_a_wire(drawn) -> None:
    explained, story, _ = drawn
    scene = place_story(story, explained.base, top=0)
    read = [v for op in scene.ops for v in dict.fromkeys(op.inputs.values()) if not v.is_constant]
    read = [v for v in read if v not in explained.base.inputs.values()]
    own = {v for op in scene.ops for v in op.outputs}
    read = [v for v in read if v in own or v.type.dtype != "kv"]
    leaving = [pill.value for pill in scene.pills if not pill.enters]
    wired = [wire.value for wire in scene.wires] + [wire.value for wire in scene.long_wires for _ in wire.targets]
    assert sorted(v.name for v in wired) == sorted(v.name for v in [*read, *leaving])


def test_names_inject_nothing() -> None:
    explained = compiled(GRAPHS["hostile"])
    text = layer_picture(explained, layer_story(explained, 0), EVIL)
    root = ElementTree.fromstring(text.encode())
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        "svg",
        "title",
        "style",
        "rect",
        "text",
        "path",
        "g",
    }
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not any(name.startswith("on") or name == "href" for each in root.iter() for name in each.keys())  # noqa: SIM118


def test_the_picture_tells_whether_the_bits_are_the_same() -> None:
    class Scaled(Decoder):
        def rotate(self, q, k):
            q, k = super().rotate(q, k)
            return self.b.scale(q, 0.5), k

    def text_of(graph: Graph) -> str:
        explained = compiled(graph)
        return layer_picture(explained, layer_story(explained, 0), "x")

    assert "changes no bit" in text_of(Decoder().graph())
    assert "last bits may differ" in text_of(Scaled().graph())


def test_the_same_graph_gives_the_same_picture() -> None:
    first, second = (compiled(Decoder(layers=3).graph()) for _ in range(2))
    assert layer_picture(first, layer_story(first), "x") == layer_picture(second, layer_story(second), "x")
