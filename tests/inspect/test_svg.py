"""Text fits its place, and stays text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from albireo.inspect import svg


def test_names_stay_text() -> None:
    evil = "<script>&\"'\x00\x1b\ud800\ufffe end"
    root = ElementTree.fromstring(svg.document(9, 9, evil, [svg.text(0, 0, evil)]).encode())
    assert [child.tag.rpartition("}")[2] for child in root] == ["title", "style", "rect", "text"]
    assert root[3].text == "<script>&\"'\ufffd\ufffd\ufffd\ufffd end"


@pytest.mark.parametrize("text", ["", "abc", "model.layers.11.mlp.gate_proj+up_proj.weight"])
def test_fit(text: str) -> None:
    for width in (6, 40, 100, 1000):
        short = svg.fit(text, width)
        assert len(short) * 10.5 * 0.602 <= max(width, 7)
        assert short == text or short.count("…") == 1
    assert svg.fit("abcdefghij", 7 * 10.5 * 0.61) == "abc…hij"


def test_wrap_loses_nothing_and_keeps_to_the_width() -> None:
    words = "one two three four five six seven eight nine ten"
    lines = svg.wrap(words, 120, 14)
    assert " ".join(lines) == words and len(lines) > 1
    assert all(len(line) * 14 * 0.5 <= 120 for line in lines)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (131072, "128 KiB"),
        (99.96 * 1024, "100 KiB"),
        (3 << 30, "3.0 GiB"),
    ],
)
def test_num_bytes(count: float, text: str) -> None:
    assert svg.num_bytes(count) == text


def test_numbers_are_short() -> None:
    assert [svg.number(v) for v in (1, 2.0, 2.349, -0.04, 1234567.89)] == ["1", "2", "2.3", "-0", "1.23457e+06"]
