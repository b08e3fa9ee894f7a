"""One JSON value, found to its end: json.loads is the oracle."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.parsers.json_scanner import MAX_DEPTH, JsonScanner, Status
from more_examples import more_examples
from parsers.cutting import cut

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def scanned(pieces: list[str]) -> tuple[Status, int]:
    """Status, and how many characters were taken."""
    scanner, taken = JsonScanner(), 0
    for piece in pieces:
        pos = scanner.scan(piece, 0)
        taken += pos
        if pos < len(piece):
            break
    return scanner.status, taken


@given(VALUES, st.integers(0, 1000), st.booleans())
@settings(max_examples=60)
def test_a_value_ends_where_it_ends_however_it_is_cut(value: object, seed: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=seed % 3 or None)
    assert scanned(cut(text + " ;rest", random.Random(seed))) == (Status.DONE, len(text))


@given(st.text(alphabet='{}[]",:\\u0123456789abcdef-+.eEtrulsn \n', max_size=30), st.integers(0, 1000))
@more_examples(3)
def test_it_takes_exactly_what_json_takes(text: str, seed: int) -> None:
    whole = scanned([text, "\0"])
    assert scanned([*cut(text, random.Random(seed)), "\0"]) == whole
    try:
        json.loads(text)
    except ValueError:
        assert whole != (Status.DONE, len(text))
    else:
        assert whole[0] is Status.DONE and text[whole[1] :].strip() == ""


def test_escapes_and_words_may_be_cut_anywhere() -> None:
    text = r'{"\u00E9\"": ["\ud83d\ude00\n", -1.5e+3, true, null, {"": {}}, []]}'
    assert json.loads(text)
    for at in range(len(text)):
        assert scanned([text[:at], text[at:] + " "]) == (Status.DONE, len(text))


@pytest.mark.parametrize(
    "text",
    [
        *("[01]", "[1.]", "[-]", "[1e]", "{,}", "[1,]", '{"a":1,}', "[tru]", '["\n"]', r'["\x"]', "'a'"),
        *(r'["\u00e"]', r'["\u00g9"]', '{"a"=1}', '{"a": 1]', "{1: 2}"),
    ],
)
def test_what_is_no_json_is_told(text: str) -> None:
    assert scanned([text])[0] is Status.FAILED


def test_depth_has_a_limit() -> None:
    assert scanned(["[" * MAX_DEPTH + "]" * MAX_DEPTH])[0] is Status.DONE
    assert scanned(["[" * (MAX_DEPTH + 1)]) == (Status.FAILED, MAX_DEPTH)
