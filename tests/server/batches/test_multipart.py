"""Bodies of forms: what httpx writes is read back, however it is cut, and what is no form is refused."""

from __future__ import annotations

import random
from typing import Any

import httpx2 as httpx
import pytest

from albireo.server.errors import HttpError
from albireo.server.multipart import MAX_HEAD_BYTES, MAX_PARTS, Multipart, Part

TYPE = "multipart/form-data; boundary=x"


def read(content_type: str, body: bytes, sizes: Any) -> list[tuple[str, str | None, bytes]]:
    form, found, at = Multipart(content_type), [], 0
    while at < len(body):
        size = next(sizes)
        for each in form.feed(body[at : at + size]):
            if isinstance(each, Part):
                found.append([each.name, each.filename, b""])
            else:
                found[-1][2] += each
        at += size
    assert form.is_over
    return [tuple(each) for each in found]


def test_what_httpx_writes_is_read_back() -> None:
    dice = random.Random(1)
    for _ in range(200):
        data = bytes(dice.choice(b"\r\n-x{}") for _ in range(dice.randrange(60)))
        name = dice.choice(["in.jsonl", 'a "b".jsonl', "Übung.jsonl", "x"])
        request = httpx.Request(
            "POST", "http://x", data={"purpose": "batch"}, files={"file": (name, data)}, headers={"content-type": TYPE}
        )
        found = read(TYPE, request.read(), iter(lambda: dice.choice([1, 2, 3, 7, 50, 4096]), 0))
        assert sorted(found) == [("file", name.replace('"', "%22"), data), ("purpose", None, b"batch")]


def test_preamble_epilogue_and_empty_parts() -> None:
    body = b'before\r\n--x \r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--x--\r\nafter'
    assert read(TYPE, body, iter(lambda: 1, 0)) == [("a", None, b"")]


HEAD = b'Content-Disposition: form-data; name="a"'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--x\r\n\r\nno name\r\n--x--", "a part has no name"),
        (b"--x\r\nContent-Disposition: attachment; name=a\r\n\r\n\r\n--x--", "a part has no name"),
        (b"--xyz\r\n", "a boundary is not at the end of a line"),
        (b"--x" + b" " * (MAX_HEAD_BYTES + 1), "a boundary is not at the end of a line"),
        (b"--x\r\n" + b"A: b\r\n" * 2000 + HEAD + b"\r\n\r\n", "the headers of a part are larger"),
        ((b"--x\r\n" + HEAD + b"\r\n\r\n\r\n") * (MAX_PARTS + 1), f"there are more than {MAX_PARTS} parts"),
    ],
)
def test_what_is_no_form(body: bytes, words: str) -> None:
    with pytest.raises(HttpError) as refused:
        list(Multipart(TYPE).feed(body))
    assert refused.value.status == 400 and words in refused.value.message


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_other_types(kind: str) -> None:
    with pytest.raises(HttpError, match="multipart/form-data with a boundary"):
        Multipart(kind)


def test_noise_is_read_or_refused() -> None:
    dice = random.Random(2)
    pieces = [b"--x", b"\r\n", b"--", HEAD, b'; filename*="', b"utf-8''%ff", b"\x00", b"\xff", b":", b"=", b";"]
    for _ in range(500):
        form = Multipart(TYPE)
        try:
            for _ in range(20):
                assert all(isinstance(each, Part | bytes) for each in form.feed(dice.choice(pieces)))
        except HttpError as error:
            assert error.status == 400
