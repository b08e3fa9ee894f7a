"""Bodies by themselves: limits that hold for each and for all of them together."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from albireo.server import body
from albireo.server.body import MAX_TOTAL, WAITED, Bodies, ClientGone, parse, received_s, replayed
from albireo.server.errors import HttpError


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    a: int
    b: list[int] | None = None


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    one: Shape | None = None
    many: list[Shape] | None = None
    told: dict[str, str] | None = None


class Text(msgspec.Struct, forbid_unknown_fields=True):
    c: int | str


DECODER = msgspec.json.Decoder(Shape)
WHOLES = msgspec.json.Decoder(Whole)
TEXTS = msgspec.json.Decoder(Text)


def sender(*chunks: bytes, is_gone: bool = False) -> Any:
    events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    events.append({"type": "http.disconnect"} if is_gone else {"type": "http.request", "body": b""})

    async def receive() -> Any:
        return events.pop(0)

    return receive


async def read(bodies: Bodies, receive: Any, *headers: tuple[bytes, bytes]) -> bytes:
    async with bodies.read({"type": "http", "method": "POST", "headers": list(headers)}, receive) as body:
        return body


def test_a_body_in_pieces() -> None:
    assert asyncio.run(read(Bodies(10), sender(b"ab", b"", b"cd"))) == b"abcd"


@pytest.mark.parametrize(
    ("receive", "headers"),
    [
        (sender(b"x" * 11), ()),
        (sender(b"x" * 6, b"x" * 5), ()),
        (sender(), ((b"content-length", b"11"),)),
        (sender(), ((b"content-length", b"9" * 5000),)),
    ],
)
def test_too_large(receive: Any, headers: Any) -> None:
    bodies = Bodies(10)
    with pytest.raises(HttpError) as raised:
        asyncio.run(read(bodies, receive, *headers))
    assert raised.value.status == 413
    assert bodies._num_held == 0


def test_a_body_of_the_limit_is_read_whatever_other_headers_say() -> None:
    headers = ((b"content-length", b"10"), (b"x-tokens", b"11"), (b"content-length", b"+11"))
    assert asyncio.run(read(Bodies(10), sender(b"x" * 10), *headers)) == b"x" * 10


def test_a_request_that_is_handed_on_came_before_it_waited() -> None:
    before = time.monotonic()
    came = received_s({"type": "http", WAITED: 5.0})
    assert before - 5 <= came <= time.monotonic() - 5
    assert before <= received_s({"type": "http"}) <= time.monotonic()


def test_a_body_that_was_read_is_there_again_once() -> None:
    async def all_of() -> list[Any]:
        receive = replayed(b"abc", sender(is_gone=True))
        return [await receive() for _ in range(2)]

    whole = {"type": "http.request", "body": b"abc", "more_body": False}
    assert asyncio.run(all_of()) == [whole, {"type": "http.disconnect"}]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON does not tell 5.0 from 5."""
    assert parse(b'{"a": 5.0, "b": [1, 2e1, -0.0], "else": null}', DECODER) == Shape(5, [1, 20, 0])
    assert parse(b'{"c": 7.0}', TEXTS) == Text(7)
    for wrong, field in ((b'{"a": 5.5}', "a"), (b'{"a": 5, "b": [1.0, 2.5]}', "b"), (b'{"a": 1e300}', "a")):
        with pytest.raises(HttpError, match="got `float`") as raised:
            parse(wrong, DECODER)
        assert raised.value.param == field


def test_a_body_is_not_read_again_for_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []
    convert = msgspec.convert

    def counted(*args: Any) -> Any:
        tries.append(args)
        return convert(*args)

    monkeypatch.setattr(msgspec, "convert", counted)
    numbers: Any = msgspec.defstruct("Numbers", [*((f"n{i}", int) for i in range(9)), ("f", float), ("ids", list[int])])
    body = {**{f"n{i}": float(i) for i in range(9)}, "f": 2.0, "ids": [1, 2.0]}
    read = parse(msgspec.json.encode(body), msgspec.json.Decoder(numbers))
    assert read == numbers(*range(9), 2.0, [1, 2]) and isinstance(read.f, float)
    assert len(tries) == 2  # once more for the list


def test_what_is_missing_is_named() -> None:
    with pytest.raises(HttpError, match="missing required field `a`") as raised:
        parse(b'{"b": [1]}', DECODER)
    assert (raised.value.param, raised.value.code) == ("a", "missing_required_parameter")


def test_a_client_that_goes_leaves_nothing() -> None:
    bodies = Bodies(10)
    with pytest.raises(ClientGone):
        asyncio.run(read(bodies, sender(b"abc", is_gone=True)))
    assert bodies._num_held == 0


def test_all_together_are_bounded() -> None:
    async def hold() -> None:
        bodies = Bodies(10)
        is_over = asyncio.Event()

        async def one() -> None:
            async with bodies.read({"method": "POST", "headers": []}, sender(b"x" * 10)):
                await is_over.wait()

        holding = [asyncio.create_task(one()) for _ in range(MAX_TOTAL)]
        await asyncio.sleep(0)
        with pytest.raises(HttpError) as raised:
            await read(bodies, sender(b"x"))
        assert raised.value.status == 429 and raised.value.headers["retry-after"]
        is_over.set()
        await asyncio.gather(*holding)
        assert await read(bodies, sender(b"x")) == b"x"

    asyncio.run(hold())


def test_a_byte_order_mark_is_no_part_of_a_body() -> None:
    assert asyncio.run(read(Bodies(20), sender(b"\xef\xbb\xbf", b'{"a": 1}'))) == b'{"a": 1}'


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"GZIP, identity"])
def test_bodies_that_are_compressed_are_refused_as_that(coding: bytes) -> None:
    with pytest.raises(HttpError, match=f"content-encoding='{coding.decode()}'") as raised:
        asyncio.run(read(Bodies(10), sender(b"\x1f\x8b"), (b"content-encoding", coding)))
    assert raised.value.status == 415


def test_a_body_may_say_that_it_is_not_compressed() -> None:
    assert asyncio.run(read(Bodies(10), sender(b"{}"), (b"content-encoding", b"Identity"))) == b"{}"


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"a": "1"}', "a"),
        (b'{"a": 1, "b": [1, "x"]}', "b"),
        (b'{"a": 1, "c": 1}', "c"),
        (b'{"b": []}', "a"),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_what_does_not_fit_is_a_400(data: bytes, param: str | None) -> None:
    with pytest.raises(HttpError) as raised:
        parse(data, DECODER)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_unknown_fields_may_be_null() -> None:
    assert parse(b'{"a": 1, "c": null, "b": null}', DECODER) == Shape(1)


def test_unknown_fields_further_in_may_be_null() -> None:
    found = parse(b'{"one": {"a": 1, "x": null}, "many": [{"a": 2}, {"a": 3, "y": null, "x": null}]}', WHOLES)
    assert found == Whole(Shape(1), [Shape(2), Shape(3)])
    # each null is another look at the whole body
    many = b", ".join([b'{"a": 1, "x": null}'] * 40)
    with pytest.raises(HttpError):
        parse(b'{"many": [' + many + b"]}", WHOLES)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"one": {"a": 1, "x": 2}}', "one.x"),
        (b'{"many": [{"a": 1}, {"a": 1, "x": 0}]}', "many[1].x"),
        (b'{"x": 1}', "x"),
    ],
)
def test_unknown_fields_further_in_are_named_with_their_place(data: bytes, param: str) -> None:
    with pytest.raises(HttpError, match=r"'x'( of .*)? is not a field") as caught:
        parse(data, WHOLES)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "text", [rb"\ud83d", rb"a\ud83d and more", rb"\uDE00 and more", rb"\\\ud83d", rb"\ud83d\ud83d\ude00"]
)
def test_half_a_letter_is_named(text: bytes) -> None:
    """What clients send that cut a text at a number of UTF-16 units."""
    with pytest.raises(HttpError, match=r"\\u[dD][8eE]\w+ at byte \d+ is half of a pair"):
        parse(b'{"told": {"a": "' + text + b'"}}', WHOLES)


def test_a_byte_that_is_no_utf8_is_named_by_its_place_in_the_body() -> None:
    with pytest.raises(HttpError, match="not valid JSON: the byte 0xe9 at byte 19 is not UTF-8") as caught:
        parse(b'{"told": {"a": "caf\xe9"}}', WHOLES)
    assert caught.value.status == 400


def test_few_are_looked_at_to_find_half_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of megabytes that is no JSON is refused on the event loop."""
    text = rb"\\ud83d" * 3 + rb"\ud83d"
    assert (found := body._half_of_pair(text)) is not None and found.start() == 21
    monkeypatch.setattr(body, "_MOST_HALVES", 3)
    assert body._half_of_pair(text) is None


@pytest.mark.parametrize("text", [rb"\ud83d\ude00", rb"\\ud83d", "\U0001f600".encode()])
def test_whole_letters_are_no_halves(text: bytes) -> None:
    assert parse(b'{"told": {"a": "' + text + b'"}}', WHOLES).told
    with pytest.raises(HttpError, match="not valid JSON") as caught:
        parse(b'{"told": {"a": "' + text + b'"}', WHOLES)
    assert "half" not in str(caught.value)
