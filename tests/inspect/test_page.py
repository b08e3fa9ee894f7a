"""The page is whole in itself, well-formed, and what it names stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.graph.node import Graph
from albireo.inspect.page import page
from albireo.inspect.story import layer_story
from compiler.examples import Decoder
from inspect_programs import EVIL, LEVELS, Hostile, compiled

FACTS = [("model", EVIL), ("files", "one"), ("", "two")]


def page_of(graph: Graph) -> str:
    explained = compiled(graph)
    return page(explained, layer_story(explained), CpuCatalog(LEVELS), FACTS, EVIL, "llama")


class Reader(HTMLParser):
    """Tags, attributes and text; every tag that is opened must be closed."""

    VOID = ("meta", "br", "!doctype")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(params=[Decoder, Hostile])
def read(request) -> Reader:
    reader = Reader()
    text = page_of(request.param(layers=2).graph())
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_nothing_outside_is_referred_to(read) -> None:
    names = {name for _, attrs in read.seen for name in attrs}
    assert not names & {"src", "href", "xlink:href", "action", "data", "poster"}
    assert not {tag for tag, _ in read.seen} & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in read.text and "@import" not in read.text and "http" not in read.text


def test_sections(read) -> None:
    for words in ("Summary", "Fusion in one layer", "Passes", "Kernels", "Memory map", "Weights by packing", "Totals"):
        assert words in read.text
    for words in ("fuse_qkv_rope_kv", "fired 2×, saves", "because there is nothing for it to rewrite", "p64.bfloat16"):
        assert words in read.text
    assert sum(tag == "svg" for tag, _ in read.seen) == 2
    assert "<script>alert('x')</script>" in read.text


def test_refusals_are_told() -> None:
    class Hidden(Decoder):
        def head(self, y):
            return super().head(y) | {"hidden": y}

    assert "not fired at head: gather_rows %25, because %24 is needed for all rows, by an output" in page_of(
        Hidden().graph()
    )


def test_a_fact_without_a_name_goes_on_with_the_one_before() -> None:
    assert "<tr><td>files</td><td>one<br>two</td></tr>" in page_of(Decoder().graph())


def test_the_drawings_are_well_formed() -> None:
    for drawing in re.findall(r"<svg.*?</svg>", page_of(Hostile().graph()), re.S):
        ElementTree.fromstring(drawing.encode())
