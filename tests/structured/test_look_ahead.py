"""Look-ahead at the beginning of an expression: what Python's own matches is what an output may be."""

from __future__ import annotations

import decimal
import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from albireo.errors import InvalidParams, RequestError
from albireo.structured.look_ahead import split, without_look_ahead
from albireo.structured_params import MAX_REGEX_CHARS, StructuredOutputsParams
from structured.vocabularies import allowed_ids, compiler, tokenizer

LETTERS = ["a", "b", "A", "Z", "0", "7", ".", "-", "+", " ", "$", "|", "é", "foo", ")"]


def matcher_of(form: StructuredOutputsParams) -> object:
    return compiler("bundled").compile(form)


def allows(constraint: object, text: str) -> bool:
    matcher = constraint.matcher()  # type: ignore[attr-defined]
    output: list[int] = []
    for token_id in tokenizer("bundled").encode(text, add_special_tokens=False):
        if token_id not in allowed_ids(matcher, output):
            return False
        output.append(token_id)
    return bool(set(allowed_ids(matcher, output)) & set(matcher.eos_token_ids))


def texts(seed: object) -> list[str]:
    dice = random.Random(str(seed))
    few = ["a", "b", "f", "foo", "fo"]
    made = ["".join(dice.choices(of, k=dice.randrange(2, 7))) for of in (LETTERS, LETTERS, few) for _ in range(20)]
    return ["", *LETTERS, *few, *made]


#: Those that a schema's pattern may be, too.
BOTH = [
    r"^(?=.*[A-Z])(?=.*[0-9]).{3,}$",
    r"^(?!^[-+.]*$)[+-]?0*[0-9]*\.?[0-9]*$",
    r"^(?=[a-z])(?!.*\.)[a-z.0-9]+$",
    r"^(?!\s*$).+",
    r"^(?![0-9])[^ ]+$",
    r"^(?!.*[ ])[^)]*$",
    r"^(?!\.)(?!-)[a-z.-]{1,4}",
    r"^(?!a+$)[ab]*$",
    r"^(?=a|b)[a-z]+$",
    r"^(?=.*[)|$]).{2,}$",
]
#: Those that no schema's can.
ALONE = [r"^(?!foo).*$", r"(?!.*foo)[a-z.]+", r"^(?!(a|b)$)[ab]+$", r"^(?![ab]{2})[abAZ]+$", r"(?!foo$)(?=f)[a-z]+"]


@pytest.mark.parametrize("pattern", [*BOTH, *ALONE])
def test_a_regex_that_looks_ahead(pattern: str) -> None:
    constraint = matcher_of(StructuredOutputsParams(regex=pattern))
    found = {text: re.fullmatch(pattern, text) is not None for text in texts(pattern)}
    assert len(set(found.values())) == 2, "some match, some do not"
    for text, fits in found.items():
        assert allows(constraint, text) is fits, text


@pytest.mark.parametrize("pattern", BOTH)
def test_a_pattern_of_a_schema_that_looks_ahead(pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}
    constraint = matcher_of(StructuredOutputsParams(json=schema, disable_any_whitespace=True))
    for text in texts(pattern):
        fits = re.search(pattern, text) is not None
        assert allows(constraint, json.dumps({"a": text}, ensure_ascii=False, separators=(",", ":"))) is fits, text


def short_texts(letters: str) -> Iterator[str]:
    for length in range(5):
        yield from map("".join, itertools.product(letters, repeat=length))


#: With the letters that texts are made of. A $ ends the alternative that it is in, and no other.
ALTERNATIVES = [
    (r"^(?!\s|.*\s$).+$", "ab "),
    (r"^(?!\s+$|-).*$", "a -"),
    (r"^(?!-|^\.|.*-$)[-.a]+$", "a-."),
    (r"^(?![^^]|.*[^^a]$).*$", "a^b"),
    (r"^(?!a+$|b)[ab]*$", "abc"),
    (r"^(?=a|b$)[a-z]+$", "abc"),
    (r"^(?=a$|b)[a-z]+$", "abc"),
    (r"^(?=a$|bc?$)[a-z]+$", "abc"),
    (r"^(?=^a|^b$|.c)[a-z]*$", "abc"),
    (r"^(?=a|$).*$", "ab"),
    (r"^(?=(?:^a|b)c).*$", "abc"),
    (r"^(?=a\$|b|[$|]$)[ab|$]+$", "ab|$"),
    (r"^(?=a|b$)(?!.*c$|b+$)[a-z]+$", "abc"),
    (r"^(?=(?:a|bc)c$|b(?:a|b)).*$", "abc"),
]
ALTERNATIVES_ALONE = [
    (r"^(?!ab|ba$)[a-z]+$", "abc"),
    (r"^(?!ab$|ba)[a-z]+$", "abc"),
    (r"^(?!a$|(?:b|c)b$|ca)[a-z]*$", "abc"),
    (r"(?!a|$)[abc]*", "abc"),
    (r"^(?!.b|.*bc$|b*$).+$", "abc"),
    (r"^(?=a|b$)(?!.*c$|ab)[a-z]+$", "abc"),
]


@pytest.mark.parametrize(("pattern", "letters"), [*ALTERNATIVES, *ALTERNATIVES_ALONE])
def test_alternatives_of_a_regex(pattern: str, letters: str) -> None:
    constraint = matcher_of(StructuredOutputsParams(regex=pattern))
    found = {text: re.fullmatch(pattern, text) is not None for text in short_texts(letters)}
    assert len(set(found.values())) == 2, "some match, some do not"
    assert {text: allows(constraint, text) for text in found} == found


@pytest.mark.parametrize(("pattern", "letters"), ALTERNATIVES)
def test_alternatives_of_a_pattern(pattern: str, letters: str) -> None:
    constraint = matcher_of(StructuredOutputsParams(json={"type": "string", "pattern": pattern}))
    found = {text: re.search(pattern, text) is not None for text in short_texts(letters)}
    assert {text: allows(constraint, json.dumps(text)) for text in found} == found


def test_names_that_are_reserved() -> None:
    constraint = matcher_of(StructuredOutputsParams(regex=r"^(?!admin|root$)[a-z]+$"))
    fits = {"admin": False, "administer": False, "root": False, "roots": True, "roo": True, "an": True}
    assert {text: allows(constraint, text) for text in fits} == fits


@pytest.mark.parametrize("pattern", [r"^(?!.*[^^])[\^]*$", r"^(?![^^]).*$", r"^(?![^^a]+$).+$", r"^(?![^^-a]).*$"])
def test_a_class_of_all_but_a_caret(pattern: str) -> None:
    constraint = matcher_of(StructuredOutputsParams(json={"type": "string", "pattern": pattern}))
    found = {text: re.search(pattern, text) is not None for text in short_texts("a^b")}
    assert {text: allows(constraint, json.dumps(text)) for text in found} == found


def test_pydantics_decimals() -> None:
    """As its version 2.12 writes them, plain and with two decimal places."""
    patterns = (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d{0,2}0*$")
    plain_schema, places_schema = ({"anyOf": [{"type": "number"}, {"type": "string", "pattern": p}]} for p in patterns)
    schema = {
        "type": "object",
        "properties": {"plain": plain_schema, "places": places_schema},
        "required": ["plain", "places"],
    }
    constraint = matcher_of(StructuredOutputsParams(json=schema, disable_any_whitespace=True))
    for plain, places, fits in (
        ('"1.25"', '"1.25"', True),
        ("1.25", "-3", True),
        ('"-.5"', '"7"', True),
        ('"."', '"7"', False),
        ('""', '"7"', False),
        ('"1"', '"+"', False),
        ('"1"', '"1.255"', False),
        ('"1x"', '"1"', False),
    ):
        text = f'{{"plain":{plain},"places":{places}}}'
        assert allows(constraint, text) is fits, text
        if fits:
            assert all(decimal.Decimal(str(value)).is_finite() for value in json.loads(text).values())


@pytest.mark.parametrize(
    "pattern",
    [
        r"^a(?=b)b$",
        r"^(?<=a)b$",
        r"^(?=a)b|c$",
        r"^(?=a(?!b)).*$",
        r"^(?=(?:a|b$)).*$",
        r"^(?!(a$|b)|c).*$",
        r"^(?=a$b|c).*$",
        r"^(?=a$?|b).*$",
        r"^(?=(?i)a|b$).*$",
        r"^(?=[[a]|b$).*$",
        r"^(?=a)?b$",
        r"^(?=a){2}b$",
        r"^(?=",
        r"^(?!\bx).*$",
        "^" + "(?=a)" * 17 + "a$",
    ],
)
def test_any_other_is_refused(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    assert without_look_ahead(schema) == schema
    with pytest.raises(RequestError):
        matcher_of(StructuredOutputsParams(json=schema))


@pytest.mark.parametrize("besides", [None, 5, {}, {"type": "string"}, "a", True])
def test_what_is_no_list_of_schemas_stays(besides: Any) -> None:
    """The library says what is wrong with it."""
    schema = {"type": "string", "pattern": "^(?=a)b", "allOf": besides}
    assert without_look_ahead(schema) == schema
    with pytest.raises(RequestError):
        matcher_of(StructuredOutputsParams(json=schema))


def test_many_alternatives() -> None:
    """One expression for all of them, but a pattern for each."""
    of_letters = "|".join("abcdefghijklmnopq")
    constraint = matcher_of(StructuredOutputsParams(regex=rf"^(?!{of_letters}|z$)[a-z]+$"))
    fits = {"a": False, "qz": False, "z": False, "za": True}
    assert {text: allows(constraint, text) for text in fits} == fits
    schema = {"type": "string", "pattern": rf"^(?!{of_letters})[a-z]+$"}
    assert without_look_ahead(schema) == schema


def test_a_pattern_is_read_in_one_go() -> None:
    """It is outside of the time that compiling may take."""
    begin = time.process_time()
    for pattern in (
        "^(?=" + "[" * (MAX_REGEX_CHARS - 4),
        "^(?=a)" + "[" * (MAX_REGEX_CHARS - 6),
        "^" + "(?=" * (MAX_REGEX_CHARS // 3 - 1),
        "^(?=" + r"[\]" * (MAX_REGEX_CHARS // 3 - 2),
        "^(?=" + "[^]" * (MAX_REGEX_CHARS // 3 - 2),
    ):
        assert len(pattern) <= MAX_REGEX_CHARS
        for _ in range(10):
            split(pattern)
    assert time.process_time() - begin < 1.0


def test_a_pattern_longer_than_a_regex_stays() -> None:
    body = "a" * (MAX_REGEX_CHARS - 6)
    assert split(f"^(?=a){body}")[0]
    long = f"^(?=a){body}a"
    assert split(long) == ([], long)
    schema = {"type": "string", "pattern": long}
    assert without_look_ahead(schema) == schema
    with pytest.raises(InvalidParams, match="cannot be used"):
        matcher_of(StructuredOutputsParams(json=schema))


@pytest.mark.parametrize("pattern", ["^(?=a|b^c).*$", "^(?=(a|b)(^c|d)).*$", "^(?!(a|b)^c|d$).*$", "^(?=a|b$)a$b"])
def test_a_beginning_or_an_end_in_the_middle_is_refused(pattern: str) -> None:
    for form in (StructuredOutputsParams(regex=pattern), StructuredOutputsParams(json={"pattern": pattern})):
        with pytest.raises(InvalidParams, match=r"look-?around"):
            matcher_of(form)


def test_what_is_looked_for_anywhere_is_refused() -> None:
    """A pattern without a beginning may match later, and looks ahead from there."""
    schema = {"type": "string", "pattern": "(?=a)[ab]+"}
    assert without_look_ahead(schema) == schema
    with pytest.raises(InvalidParams, match="look-around"):
        matcher_of(StructuredOutputsParams(json=schema))
    with pytest.raises(InvalidParams, match="look-around"):
        matcher_of(StructuredOutputsParams(json={"type": "string", "pattern": "^(?!foo)[a-z]+$"}))


def test_what_looks_nowhere_stays_as_it_is() -> None:
    for pattern in ("^[a-z]+$", r"\(\?=a\)", "", "a|b", "(?:a)", "(?i)a"):
        assert split(pattern) == ([], pattern)
    plain = {"type": "object", "properties": {"a": {"pattern": "^a"}}, "allOf": [{"required": ["a"]}]}
    assert without_look_ahead(plain) == plain
