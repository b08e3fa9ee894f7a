"""Events come out whole, wherever the bytes were split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.bench.serving.sse import EventParser

STREAM = (
    b": a ping\n\n"
    b'data: {"text": "one"}\n\n'
    b"event: message\r\nid: 3\r\ndata: two\r\n\r\n"
    b"data:first\ndata: second\n\n\n\n"
    b'data: {"text": "\xc3\xa9"}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS = [b'{"text": "one"}', b"two", b"first\nsecond", '{"text": "é"}'.encode(), b"[DONE]"]


def parsed(chunks) -> list[bytes]:
    parser = EventParser()
    return [found for chunk in chunks for found in parser.feed(chunk)] + parser.finish()


@given(st.lists(st.integers(0, len(STREAM))))
def test_splits_do_not_matter(cuts):
    edges = sorted({0, *cuts, len(STREAM)})
    assert parsed(STREAM[a:b] for a, b in pairwise(edges)) == EVENTS


def test_byte_by_byte():
    assert parsed(STREAM[i : i + 1] for i in range(len(STREAM))) == EVENTS


def test_an_event_is_out_as_soon_as_it_is_whole():
    parser = EventParser()
    assert parser.feed(b"data: 1\n\ndata: 2\n\nda") == [b"1", b"2"]
    assert parser.feed(b"ta: 3\n") == []
    assert parser.feed(b"\n") == [b"3"]


@pytest.mark.parametrize("rest", [b"data: last", b"data: last\n", b"data: last\r"])
def test_a_stream_may_end_without_the_blank_line(rest):
    assert parsed([b"data: 1\n\n", rest]) == [b"1", b"last"]


def test_nothing_is_made_up_at_the_end():
    assert parsed([b"data: 1\n\n", b": ping"]) == [b"1"]
    assert parsed([]) == []
