"""Small programs, and pictures read back. Used by the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.compiler.pipeline import compile_graph
from albireo.graph.node import Graph
from albireo.inspect.scene import Rect
from albireo.inspect.story import Explained, explain
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder

LEVELS = ("avx512bf16", "avx512", "avx2", "scalar")
SVG = "{http://www.w3.org/2000/svg}"
EVIL = "a\"><script>alert('x')</script><b&\x1b]0;\ud800"


class Hostile(Decoder):
    """A decoder whose every name is an attack on whoever prints it."""

    def weight(self, name, *dims):
        return super().weight(f"{name}{EVIL}", *dims)

    def linear(self, x, name, rows):
        with self.b.part(EVIL):
            return super().linear(x, name, rows)


def compiled(graph: Graph) -> Explained:
    """Compiled for the native kernels of every level, whether this machine has them or not."""
    program = compile_graph(
        graph, CpuCatalog(LEVELS), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS
    )
    return explain(graph, program)


def rects(root: ElementTree.Element, kind: str) -> list[Rect]:
    """Every rectangle one of whose classes is kind."""
    found = (each for each in root.iter(f"{SVG}rect") if kind in each.get("class", "").split())
    return [Rect(*(float(each.get(name, "0")) for name in ("x", "y", "width", "height"))) for each in found]


def overlapping(places: list[Rect]) -> Iterator[tuple[Rect, Rect]]:
    for i, one in enumerate(places):
        yield from ((one, other) for other in places[:i] if one.overlaps(other))


def contains(outer: Rect, inner: Rect) -> bool:
    return outer.x <= inner.x and outer.y <= inner.y and inner.right <= outer.right and inner.bottom <= outer.bottom
